"""NaN, Inf and spikes in batch, loss and gradient: named, recorded, stopped at, skipped or gone round; never saved."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.checkpoint import manifest, saving
from fdl.data import Data, Facts, Request, Splits, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.train import loop
from fdl.train.compiled import Compiled
from fdl.train.program import Program
from fdl.types import Array, Batch, RunError

SEED = 0
CASES, ALL_CASES = 15, 300
STEPS, LIMIT = 24, 50.0
# What is put into a batch's "trouble" column, and what the run must say is bad.
KINDS = {"nan": "an input", "inf": "an input", "loss": "the loss", "spike": "the loss", "gradient": "the gradient of "}
CODES = {"loss": 1.0, "spike": 2.0, "gradient": 3.0}


def points(request: Request) -> Splits:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 260).astype(np.int32)
    inputs = (rng.normal(size=(260, 5)) + targets[:, None]).astype(np.float32)
    rows = {"inputs": inputs, "targets": targets, "trouble": np.zeros(260, np.float32)}
    cut = lambda part: {name: leaf[part] for name, leaf in rows.items()}  # noqa: E731
    return Splits(
        "points", "builtin", "drawn", cut(slice(0, 200)), cut(slice(200, 260)), facts=Facts(classes=("a", "b", "c"))
    )


@dataclasses.dataclass(frozen=True)
class Fragile(Classification):
    """Its loss is not finite, far too large, or without a gradient for the examples that say so."""

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        scores = super().score(outputs, batch)
        trouble = batch["trouble"]
        steep = trouble == CODES["gradient"]
        still = jnp.where(steep[:, None], outputs - jax.lax.stop_gradient(outputs), 1)
        steep = jnp.where(steep, jnp.sqrt(jnp.square(still).sum(-1)), 0)  # 0, its gradient NaN
        loss = scores["loss"] * jnp.where(trouble == CODES["spike"], 1e6, 1)
        scores["loss"] = jnp.where(trouble == CODES["loss"], jnp.nan, loss + steep)
        return scores


@functools.cache
def program_of(policy: str) -> Program:
    experiment = Experiment(
        data=Data(load=points, validation=30, feed="numpy"), model=MLP(widths=(6,), outputs=3, batch_norm=True, dropout=0.1),
        task=Fragile(), optimizer=Optimizer(learning_rate=1e-2), steps=STEPS, batch_size=8, eval_batch_size=30, log_every=5,
        eval_every=8, save_every=6, on_bad_step=policy, loss_limit=LIMIT, name="points",  # type: ignore[arg-type]
    )  # fmt: skip
    data = pipeline.load(experiment.data, Request(), None)
    return Program(experiment, data, layouts.choose_layout("jit", jax.devices()[:1]), 0, STEPS)


begin_anew, begun = Compiled.initial_state, dict[str, Any]()


def begin(compiled: Compiled) -> Any:
    """The state at step 0, compiled once for each policy: that costs more than the run."""
    policy = compiled.program.experiment.on_bad_step
    if policy not in begun:
        begun[policy] = jax.device_get(begin_anew(compiled))
    return jax.tree.map(jnp.array, begun[policy])


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiled, "initial_state", begin)


def poisoned(bad: dict[int, str], rng: random.Random) -> Callable[..., Iterator[Batch]]:
    """The feed, with trouble in one example of each of these steps' batches."""

    def feed(kind: str, arrays: Any, stream: pipeline.Stream, start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(pipeline.numpy_feed(arrays, stream, start, stop), start + 1):
            if step in bad:
                batch = {name: np.array(leaf) for name, leaf in batch.items()}
                place = rng.randrange(8)
                if bad[step] in CODES:
                    batch["trouble"][place] = CODES[bad[step]]
                else:
                    batch["inputs"][place, rng.randrange(5)] = {"nan": np.nan, "inf": np.inf}[bad[step]]
            yield batch

    return feed


def by_hand(policy: str, bad: dict[int, str]) -> str:
    """What must come out: the good steps in order, the bad ones counted and nothing else."""
    program = program_of(policy)
    state = program.compiled.initial_state()
    for step, batch in enumerate(pipeline.numpy_feed(program.data.splits.train, program.stream, 0, STEPS), 1):
        if step in bad:
            state = dataclasses.replace(state, step=state.step + 1)
        else:
            state, _ = program.compiled.train_step(state, layouts.shard(batch, program.layout), program.compiled.key)
    return saving.state_sha256(state)


def newest(root: Path, policy: str) -> tuple[int, str]:
    saved = manifest.latest(root / "checkpoints")
    if saved is None:
        return 0, ""
    return saved.step, saving.state_sha256(saving.restore(saved, program_of(policy).state_spec))


def check_all_finite(root: Path, policy: str) -> None:
    for folder in (root / "checkpoints").glob("*"):
        saved = manifest.at_step(root / "checkpoints", int(folder.name))
        if saved is not None:
            state = jax.device_get(saving.restore(saved, program_of(policy).state_spec))
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
            assert saved.progress["best"] is None or np.isfinite(saved.progress["best"])
    for line in (root / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert all(np.isfinite(value) for value in row.values()), row


def check_record(root: Path, step: int, kind: str) -> None:
    found = json.loads((root / f"bad_step_{step}.json").read_text())
    assert found["step"] == step
    assert found["what"].startswith(KINDS[kind])
    assert found["rows"] == pipeline.rows_of_step(0, step - 1, 8, 170).tolist()


class Killed(Exception):
    """As good as SIGKILL to a loop that keeps nothing but its checkpoints."""


def case(number: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    rng = random.Random(SEED * 1_000_003 + number)
    policy = ("stop", "skip", "rollback")[number % 3]
    kill_at = rng.choice([None, *range(1, 4)]) if policy == "rollback" else None
    most = {"stop": 1, "skip": 6, "rollback": 4}[policy]
    bad = {step: rng.choice(sorted(KINDS)) for step in sorted(rng.sample(range(1, STEPS + 1), rng.randint(1, most)))}
    program = program_of(policy)
    monkeypatch.setattr(pipeline, "feed", poisoned(bad, rng))
    first = min(bad)
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        if kill_at and len([t for t in told if "back to" in t]) == kill_at:
            raise Killed

    calls = loop.Hooks(say=say)
    if policy == "stop":
        with pytest.raises(
            RunError, match=rf"{KINDS[bad[first]]}.* of step {first} .*nothing of it was saved"
        ) as ended:
            loop.train(program, root, calls)
        assert "\n" not in str(ended.value)
        check_record(root, first, bad[first])
        check_all_finite(root, policy)
        assert newest(root, policy)[0] < first
        monkeypatch.setattr(pipeline, "feed", poisoned({}, rng))  # the cause is mended: the same command goes on
        loop.train(program, root, loop.Hooks())
        assert newest(root, policy) == (STEPS, by_hand(policy, {}))
        return policy
    if policy == "rollback" and len(bad) > 3:
        with pytest.raises(RunError, match=f"step {max(bad)} "):
            train_through_a_kill(program, root, calls)
        check_all_finite(root, policy)
        assert newest(root, policy)[0] < max(bad)
        return "rollback, once too often"
    killed = train_through_a_kill(program, root, calls)
    policy_seen = f"{policy}, killed in between" if killed else policy
    assert newest(root, policy) == (STEPS, by_hand(policy, bad)), (bad, told)
    check_all_finite(root, policy)
    for step, kind in bad.items():
        check_record(root, step, kind)
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == STEPS
    return policy_seen


def train_through_a_kill(program: Program, root: Path, calls: loop.Hooks) -> bool:
    """Train to the end, started again where it was killed; whether it was. Rollbacks count over all starts."""
    try:
        loop.train(program, root, calls)
    except Killed:
        loop.train(program, root, loop.Hooks())
        return True
    return False


def run_cases(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    for number in range(count):
        root = tmp_path / str(number)
        try:
            kind = case(number, root, monkeypatch)
        except AssertionError as error:
            raise AssertionError(f"case {number} of seed {SEED}: {error}") from error
        seen[kind] = seen.get(kind, 0) + 1
    print(seen)


def test_some_bad_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cases(CASES, tmp_path, monkeypatch)


@pytest.mark.slow
def test_three_hundred_bad_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cases(ALL_CASES, tmp_path, monkeypatch)
