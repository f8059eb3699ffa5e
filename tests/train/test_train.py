"""The loop and the steps in one process: layouts agree, evaluation is exact, runs stop when they should."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from small import program_of, rows_of, run, small

from fdl.checkpoint import manifest, saving
from fdl.distributed import layouts
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.rundir import logs
from fdl.tasks import Classification
from fdl.train import loop, stopping
from fdl.train.evaluation import evaluate, view
from fdl.train.progress import Progress, update_best
from fdl.types import RunError, UserError


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size=30"):
        layouts.check_divides(layouts.choose_layout("jit"), batch_size=30)


def test_evaluation_is_exact_over_a_ragged_end(tmp_path: Path) -> None:
    program = program_of(small())
    state = program.compiled.initial_state()
    metrics = evaluate(program, state.variables, program.data.splits.test)  # 80 rows by 24
    outputs = view(program, state.variables).outputs(program.data.splits.test)
    targets = program.data.splits.test["targets"]
    assert metrics["accuracy"] == pytest.approx(np.mean(outputs.argmax(-1) == targets), abs=1e-7)
    logp = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    assert metrics["loss"] == pytest.approx(-logp[np.arange(80), targets].mean(), abs=1e-6)


def test_evaluating_in_between_leaves_the_training_bits_alone(tmp_path: Path) -> None:
    often, _ = run(small(eval_every=2, save_every=3), tmp_path / "often")
    seldom, _ = run(small(eval_every=20, save_every=20), tmp_path / "seldom")
    assert saving.state_sha256(often) == saving.state_sha256(seldom)


def test_the_feeds_train_the_same_bits(tmp_path: Path) -> None:
    data = dataclasses.replace(small().data, feed="tf")
    assert saving.state_sha256(run(small(data=data), tmp_path / "tf")[0]) == saving.state_sha256(
        run(small(), tmp_path / "numpy")[0]
    )


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    digests = [
        saving.state_sha256(run(small(steps=5), tmp_path / str(i), seed=seed)[0]) for i, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_stop_at_a_target_with_the_classic_message(tmp_path: Path) -> None:
    said: list[str] = []
    program = program_of(small(steps=400, stop_at=0.6, task=Classification()))
    progress = loop.train(program, tmp_path, loop.Hooks(said.append))
    assert "Reached 60% accuracy so cancelling training!" in said
    assert manifest.latest(tmp_path / "checkpoints").step < 400  # type: ignore[union-attr]
    again = loop.train(program_of(small(steps=400, stop_at=0.6)), tmp_path, loop.Hooks(said.append))
    assert again == progress, "a run that stopped itself goes on when it is started again"
    further = loop.train(program_of(small(steps=400, stop_at=0.7)), tmp_path, loop.Hooks(said.append))
    assert further.best >= 0.7, "a higher target does not take the run further"


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    # A rate this small changes nothing: no evaluation is better than the first.
    frozen = small(steps=200, patience=3, optimizer=Optimizer(learning_rate=1e-30), model=MLP(widths=(), outputs=3))
    program = program_of(frozen)
    said: list[str] = []
    progress = loop.train(program, tmp_path, loop.Hooks(said.append))
    assert progress.best_step == 40, "of equals the later one is the best"
    assert manifest.latest(tmp_path / "checkpoints").step == 40  # type: ignore[union-attr]
    assert any("stopped early" in line for line in said)


def test_patience_counts_on_over_stops(tmp_path: Path) -> None:
    """Which many trainers begin anew at every start, so that a run on machines that are taken away never ends."""
    frozen = small(steps=200, patience=3, optimizer=Optimizer(learning_rate=1e-30), model=MLP(widths=(), outputs=3))
    program, starts = program_of(frozen), 0
    while True:
        asked = iter([0] * 12 + [15] * 1000)  # each start makes one or two evaluations
        starts += 1
        try:
            progress = loop.train(program, tmp_path, loop.Hooks(stop_signal=lambda asked=asked: next(asked)))
            break
        except stopping.Interrupted:
            assert starts < 20
    assert starts > 2
    assert (progress.best_step, progress.since_best) == (40, 3)
    assert loop.train(program, tmp_path, loop.Hooks()) == progress, "once stopped, it trains no further step"


def test_a_nan_ends_the_run_and_is_never_saved(tmp_path: Path) -> None:
    wild = small(optimizer=Optimizer(rule="sgd", learning_rate=1e20), model=MLP(widths=(8,), outputs=3), save_every=1)
    with pytest.raises(RunError, match="the loss of step 2 is not finite; nothing of it was saved"):
        loop.train(program_of(wild), tmp_path, loop.Hooks())
    saved = manifest.latest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.step == 1, "the huge parameters after the first step are still finite"
    state = saving.restore(saved, program_of(wild).state_spec)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_update_best_never_takes_a_nan_for_the_best() -> None:
    program = program_of(small())
    progress = update_best(Progress(), program.experiment, 10, {"accuracy": 0.5})
    progress = update_best(progress, program.experiment, 20, {"accuracy": math.nan})
    assert (progress.best_step, progress.best, progress.since_best) == (10, 0.5, 1)
    progress = update_best(progress, program.experiment, 30, {"accuracy": 0.4})
    assert (progress.best_step, progress.best, progress.since_best) == (10, 0.5, 2)
    progress = update_best(progress, program.experiment, 40, {"accuracy": 0.6})
    assert (progress.best_step, progress.best, progress.since_best) == (40, 0.6, 0)


def test_the_average_is_what_evaluation_uses(tmp_path: Path) -> None:
    state, _ = run(small(), tmp_path)
    assert state.variables["params"] is state.ema
    assert not np.allclose(state.ema["output"]["kernel"], state.params["output"]["kernel"])


def test_rows_are_cut_back_to_the_saved_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "a": 1}\n{"step": 9, "a": 2}\n{"step": 1')
    with logs.writer(tmp_path, upto=5) as write:
        write({"step": 10, "a": 3})
    rows = rows_of(tmp_path)
    assert rows == [{"step": 5, "a": 1}, {"step": 10, "a": 3}]
