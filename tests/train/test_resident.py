"""Rows on the device and many steps in one call: the same run as with fed batches, however it is cut into calls."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small
from small import pictures, timeless

from fdl.checkpoint import saving
from fdl.data import Data, augment, ops
from fdl.models import CNN, MLP
from fdl.optim import Optimizer
from fdl.rundir import logs
from fdl.train import loop
from fdl.train.program import Program
from fdl.train.schedule import MAX_STEPS_PER_CALL, steps_until_due
from fdl.train.stopping import Interrupted
from fdl.types import RunError, UserError, is_due, named_leaves

QUIET = loop.Hooks()
LOAD = functools.partial(pictures, num_rows=200, train=150)


def program_of(mode: Any = "jit", devices: int = 1, on: bool | None = True, **changes: Any) -> Program:
    base = {
        "data": Data(load=LOAD, validation=30, augment=(augment.Shift(1),), prepare=(ops.Standardize(),), resident=on),
        "model": MLP(widths=(12,), outputs=3, batch_norm=True),
        "optimizer": Optimizer(learning_rate=1e-2, schedule="cosine", ema=0.9),
        "steps": 61, "log_every": 7, "eval_every": 20, "save_every": 25,
    }  # fmt: skip
    return small.program_of(small.small(**base | changes), mode, devices)


def run(program: Program, workdir: Path, calls: loop.Hooks = QUIET) -> tuple[dict[str, Any], str]:
    loop.train(program, workdir, calls)
    state, _ = loop.restore(program, workdir / "checkpoints")
    return named_leaves(jax.device_get(state)), saving.state_sha256(state)


@pytest.mark.parametrize(("mode", "devices"), [("jit", 1), ("pmap", 4)])
def test_the_run_is_that_of_fed_batches(tmp_path: Path, mode: str, devices: int) -> None:
    found, _ = run(program_of(mode, devices), tmp_path / "resident")
    expected, _ = run(program_of(mode, devices, on=False), tmp_path / "fed")
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], atol=2e-5, err_msg=name)
    rows = [timeless(logs.read_rows(tmp_path / name)) for name in ("resident", "fed")]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for own, other in zip(*rows, strict=True):
        assert own == pytest.approx(other, abs=2e-5)


def test_however_it_is_cut_into_calls_the_bits_are_the_same(tmp_path: Path) -> None:
    _, whole = run(program_of(), tmp_path / "whole")
    _, often = run(program_of(log_every=1), tmp_path / "often")
    assert whole == often
    # Asked to stop every so often, and gone on with: stops fall where calls end, the last one in an evaluation.
    again, starts = program_of(), 0
    while True:
        asked = iter([0] * (1 + starts % 3) + [15] * 1000)
        starts += 1
        try:
            _, resumed = run(again, tmp_path / "resumed", loop.Hooks(stop_signal=lambda: next(asked)))
            break
        except Interrupted:
            assert starts < 60
    assert starts > 3
    assert resumed == whole
    rows = [timeless(logs.read_rows(tmp_path / name)) for name in ("resumed", "whole")]
    assert rows[0] == rows[1]


def test_a_bad_step_in_the_middle_of_a_call_is_named_and_left_out(tmp_path: Path) -> None:
    fine = program_of(log_every=1)
    run(fine, tmp_path / "fine")
    losses = {row["step"]: row["train/loss"] for row in logs.read_rows(tmp_path / "fine")}
    limit = sorted(losses.values())[-2] - 1e-6  # the two worst steps are over it
    bad = sorted(step for step, loss in losses.items() if loss > limit)
    with pytest.raises(RunError, match=f"the loss of step {bad[0]} "):
        run(program_of(loss_limit=limit), tmp_path / "stop")
    _, skipped = run(program_of(loss_limit=limit, on_bad_step="skip"), tmp_path / "skip")
    _, one_by_one = run(program_of(loss_limit=limit, on_bad_step="skip", log_every=1), tmp_path / "one")
    assert skipped == one_by_one
    assert max(row.get("train/bad_steps", 0) for row in logs.read_rows(tmp_path / "skip")) >= 1


def test_calls_end_where_the_host_has_something_to_do() -> None:
    for periods in ([7.0, 20.0], [2.5, 0.0], [16.4], [0.0]):
        at, total, seen = 0, 61, []
        while at < total:
            at += steps_until_due(at, total, periods, [30])
            seen.append(at)
        wanted = {step for step in range(1, 62) for period in periods if is_due(step, period)}
        assert set(seen) == wanted | {29, 61}
    assert steps_until_due(0, 10_000, [0.0]) == MAX_STEPS_PER_CALL


def test_short_steps_lie_on_the_device_by_themselves() -> None:
    assert program_of(on=None).compiled.resident_rows is not None
    assert program_of(on=False).compiled.resident_rows is None
    assert program_of(on=None, devices=4).compiled.resident_rows is None
    assert program_of(on=None, model=MLP(widths=(3000, 3000), outputs=3)).compiled.resident_rows is None
    assert program_of(on=None, model=CNN(filters=(4,), pool=1, dense=(8,), outputs=3)).compiled.resident_rows is None
    named = program_of(on=None)
    data = dataclasses.replace(named.experiment.data, feed="numpy")
    assert (
        dataclasses.replace(named, experiment=dataclasses.replace(named.experiment, data=data)).compiled.resident_rows
        is None
    )


def test_what_is_not_in_memory_is_refused() -> None:
    lazy = program_of(on=True)
    column = type("Lazy", (), {"__len__": lambda self: 120, "shape": (120, 6, 6, 1), "dtype": np.dtype(np.uint8)})()
    train_rows = {**lazy.data.splits.train, "inputs": column}
    data = dataclasses.replace(lazy.data, splits=dataclasses.replace(lazy.data.splits, train=train_rows))
    with pytest.raises(UserError, match=r"data\.resident"):
        _ = dataclasses.replace(lazy, data=data).compiled.resident_rows
