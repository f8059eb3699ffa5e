"""Bad steps: found at their first cause, recorded, skipped or left out, and made again leaf by leaf."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import pictures, program_of, rows_of, small

from fdl.checkpoint import manifest, saving
from fdl.data import Request, Splits
from fdl.experiment import Experiment
from fdl.inspect import replay
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.train import loop
from fdl.train.bad_steps import BadStep
from fdl.types import RunError, UserError

POISONED = 77


def poisoned(request: Request) -> Splits:
    """The pictures as floats, one of them with an infinite pixel."""
    splits = pictures(request)
    inputs = splits.train["inputs"].astype(np.float32) / 255
    inputs[POISONED, 3, 4, 0] = np.inf
    test = splits.test | {"inputs": splits.test["inputs"].astype(np.float32) / 255}
    return dataclasses.replace(splits, train=splits.train | {"inputs": inputs}, test=test)


def wild(**changes: Any) -> Experiment:
    data = dataclasses.replace(small().data, load=poisoned, augment=(), prepare=(), validation=0)
    model = MLP(widths=(8,), outputs=3, batch_norm=True)
    return small(**{"data": data, "model": model, "steps": 40, "save_every": 4, **changes})


def first_sight(program: Any) -> int:
    """The step that first meets the poisoned example."""
    return next(step + 1 for step in range(40) if POISONED in program.stream.rows(step))


def test_stop_names_the_cause_and_replay_finds_the_example(tmp_path: Path) -> None:
    program = program_of(wild())
    bad = first_sight(program)
    with pytest.raises(BadStep, match=rf"an input of step {bad} is not finite"):
        loop.train(program, tmp_path, loop.Hooks())
    record = json.loads((tmp_path / f"bad_step_{bad}.json").read_text())
    assert record["step"] == bad
    assert record["rows"] == program.stream.rows(bad - 1).tolist()
    found = replay.replay(program_of(wild()), tmp_path)
    assert (found.step, found.since) == (bad, (bad - 1) // 4 * 4)
    by_name = {seen.name: seen for seen in found.arrays}
    assert found.arrays[0].name == "inputs"
    assert by_name["inputs"].bad == 1
    assert not any(seen.bad for seen in found.arrays if seen.name.startswith("parameters")), (
        "the state before it was good"
    )
    assert by_name["gradient of dense1/kernel"].bad > 0


def test_replay_names_the_worst_example_where_there_is_no_batch_norm(tmp_path: Path) -> None:
    plain = wild().model.clone(batch_norm=False)
    with pytest.raises(BadStep):
        loop.train(program_of(dataclasses.replace(wild(), model=plain)), tmp_path, loop.Hooks())
    found = replay.replay(program_of(dataclasses.replace(wild(), model=plain)), tmp_path)
    assert found.examples[0][0] == POISONED
    assert not np.isfinite(found.examples[0][1])
    assert np.isfinite([loss for _, loss in found.examples[1:]]).all()


def test_skip_leaves_everything_but_the_step_as_it_was(tmp_path: Path) -> None:
    program = program_of(wild(on_bad_step="skip"))
    bad, said = first_sight(program), []
    short = dataclasses.replace(program, total_steps=bad)
    progress = loop.train(short, tmp_path / "with", loop.Hooks(said.append))
    assert progress.bad == (bad,)
    assert any(f"of step {bad} is not finite: skipped" in line for line in said)
    after = saving.restore(manifest.latest(tmp_path / "with" / "checkpoints"), program.state_spec)  # type: ignore[arg-type]
    loop.train(dataclasses.replace(program, total_steps=bad - 1), tmp_path / "before", loop.Hooks())
    before = saving.restore(manifest.latest(tmp_path / "before" / "checkpoints"), program.state_spec)  # type: ignore[arg-type]
    assert int(after.step) == int(before.step) + 1
    assert saving.state_sha256(dataclasses.replace(after, step=before.step)) == saving.state_sha256(before)


def test_rollback_leaves_the_batch_out_and_goes_on(tmp_path: Path) -> None:
    program = program_of(wild(on_bad_step="rollback"))
    bad = first_sight(program)
    seen_again = sum(POISONED in program.stream.rows(step) for step in range(40))
    progress = loop.train(program, tmp_path, loop.Hooks())
    assert bad in progress.bad
    assert len(progress.bad) == seen_again
    state = saving.restore(manifest.latest(tmp_path / "checkpoints"), program.state_spec)  # type: ignore[arg-type]
    assert int(state.step) == 40
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    steps = [row["step"] for row in rows_of(tmp_path)]
    assert steps == sorted(set(steps)), "a row stands twice after the rollback"


@pytest.mark.parametrize("save_every", [40, 3])
@pytest.mark.parametrize("policy", ["rollback", "skip"])
def test_the_replay_of_a_second_bad_step_leaves_the_first_one_out(tmp_path: Path, policy: str, save_every: int) -> None:
    """The checkpoint before both, or the start, cannot know of the first."""
    program = program_of(wild(on_bad_step=policy))
    first, second = (int(program.stream.rows(step)[0]) for step in (10, 11))  # seen in steps 11 and 12

    def twice(request: Request) -> Splits:
        splits = poisoned(request)
        inputs = np.nan_to_num(splits.train["inputs"], posinf=0.5)
        inputs[[first, second], 1, 1, 0] = np.nan
        return dataclasses.replace(splits, train=splits.train | {"inputs": inputs})

    data = dataclasses.replace(wild().data, load=twice)
    program = program_of(dataclasses.replace(wild(on_bad_step=policy), data=data, save_every=save_every))
    program = dataclasses.replace(program, total_steps=14)
    bad = [step + 1 for step in range(14) if {first, second} & set(program.stream.rows(step).tolist())]
    if policy == "rollback" and len(bad) > 3:
        pytest.skip("the batches changed: more bad steps than rollbacks")
    loop.train(program, tmp_path, loop.Hooks())
    record = json.loads((tmp_path / f"bad_step_{bad[-1]}.json").read_text())
    assert set(bad[:-1]) & set(record["excluded"]) == set(bad[:-1])
    found = replay.replay(program, tmp_path)
    assert found.step == bad[-1]
    by_name = {array.name: array for array in found.arrays}
    assert by_name["inputs"].bad == 1
    assert not any(array.bad for array in found.arrays if array.name.startswith("parameters"))
    # The parameters are those the run had there, not merely finite ones.
    whole = dataclasses.replace(program, total_steps=bad[-1] - 1)
    loop.train(whole, tmp_path / "until", loop.Hooks())
    saved = manifest.latest(tmp_path / "until" / "checkpoints")
    assert saved is not None
    kernel = saving.restore(saved, program.state_spec).params["output"]["kernel"]
    assert by_name["parameters/output/kernel"].largest == float(np.abs(np.asarray(kernel, np.float64)).max())


def test_a_run_whose_checkpoints_are_gone_is_not_replayed_as_another(tmp_path: Path) -> None:
    program = program_of(wild())
    with pytest.raises(BadStep):
        loop.train(program, tmp_path, loop.Hooks())
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"checkpoints is missing.*bring the folder back"):
        replay.replay(program, tmp_path)


def test_a_fourth_rollback_and_an_eleventh_skip_in_a_row_end_the_run(tmp_path: Path) -> None:
    for policy, most in (("rollback", 4), ("skip", 11)):
        never_good = wild(on_bad_step=policy, loss_limit=1e-6)
        with pytest.raises(BadStep, match="over loss_limit=1e-06"):
            loop.train(program_of(never_good), tmp_path / policy, loop.Hooks())
        assert len(list((tmp_path / policy).glob("bad_step_*.json"))) == most


def test_a_state_that_overflows_in_the_update_is_not_saved(tmp_path: Path) -> None:
    # The loss and the gradient of step 1 are finite; weight decay times this rate is not.
    optimizer = Optimizer(rule="sgd", learning_rate=3e38, weight_decay=100.0)
    with pytest.raises(RunError, match="the state after the update of step 1 is not finite; nothing of it was saved"):
        loop.train(program_of(wild(optimizer=optimizer, save_every=1)), tmp_path, loop.Hooks())
    assert manifest.latest(tmp_path / "checkpoints") is None


def test_there_must_be_something_to_replay(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no bad_step_<n>\.json"):
        replay.newest_record(tmp_path)
