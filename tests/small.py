"""What many tests train and read: tiny pictures, a tiny experiment, its program and its run; the files that a run leaves."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import signal
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from PIL import Image

from fdl.checkpoint import manifest, saving
from fdl.data import Data, Facts, Request, Splits, augment, ops, pipeline
from fdl.data.standins import standin
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import CNN
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.train import loop, stopping
from fdl.train.program import Program, build
from fdl.train.progress import Progress
from fdl.train.step import State
from fdl.types import Arrays

CLASSES = ("a", "b", "c")


def cut(rows: Arrays, *places: int) -> list[Arrays]:
    """The rows before the first place, between it and the next, and so on."""
    limits = [0, *places, None]
    return [{name: leaf[first:last] for name, leaf in rows.items()} for first, last in itertools.pairwise(limits)]


def picture_rows(num_rows: int = 330, noise: int = 90, bright: int = 100) -> Arrays:
    """Pictures with a bright bar above, in the middle or below, and noise: inputs uint8 [N, 8, 8, 1], targets int32 [N]."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, num_rows).astype(np.int32)
    images = rng.integers(0, noise, (num_rows, 8, 8, 1))
    for row, kind in enumerate(targets):
        images[row, kind * 2 : kind * 2 + 3, 2:6] += bright
    return {"inputs": images.astype(np.uint8), "targets": targets}


def pictures(request: Request, num_rows: int = 330, train: int = 250) -> Splits:
    """A source of them that a small net tells apart: the first `train` rows, and the rest as the test split."""
    return Splits("pictures", "builtin", "drawn", *cut(picture_rows(num_rows), train), facts=Facts(classes=CLASSES))


def picture(value: int = 200) -> bytes:
    """A PNG file of 6 x 6 pixels of one value."""
    file = io.BytesIO()
    Image.new("L", (6, 6), value).save(file, "PNG")
    return file.getvalue()


def small(**changes: Any) -> Experiment:
    """An experiment of 20 steps with all that a step may hold: augmentation, BatchNorm, an average of the parameters."""
    moved = (augment.Flip(), augment.Shift(1))
    base = Experiment(
        data=Data(load=pictures, validation=50, augment=moved, prepare=(ops.Standardize(),), feed="numpy"),
        model=CNN(filters=(4,), dense=(8,), outputs=3, batch_norm=True),
        task=Classification(),
        optimizer=Optimizer(learning_rate=1e-2, ema=0.9),
        steps=20, batch_size=16, eval_batch_size=24, log_every=5, eval_every=10, save_every=10, name="small",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def program_of(
    experiment: Experiment, mode: Literal["jit", "pmap"] = "jit", devices: int = 1, seed: int = 0, mesh: str = ""
) -> Program:
    """Its program on the first of the virtual devices; the same one, compiled once, for all tests of a process that ask."""
    quickly = jax.config.read("jax_disable_most_optimizations")
    try:
        hash(experiment)
    except TypeError:  # it may hold what has no hash: built anew for each
        return _program.__wrapped__(experiment, mode, devices, seed, mesh, quickly)
    return _program(experiment, mode, devices, seed, mesh, quickly)


@functools.cache
def _program(
    experiment: Experiment, mode: Literal["jit", "pmap"], devices: int, seed: int, mesh: str, quickly: bool
) -> Program:
    data = pipeline.load(experiment.data, Request(offline=True), experiment.num_examples)
    return build(experiment, data, seed, layouts.choose_layout(mode, jax.devices()[:devices], mesh))


def saved_state(program: Program, workdir: Path) -> Any:
    """The state of the newest checkpoint."""
    saved = manifest.latest(workdir / "checkpoints")
    assert saved is not None
    return saving.restore(saved, program.state_spec)


def run(experiment: Experiment, workdir: Path, **kind: Any) -> tuple[Any, Progress]:
    """Train it to its end; its state as saved, and its progress. `kind` is for `program_of`."""
    program = program_of(experiment, **kind)
    progress = loop.train(program, workdir, loop.Hooks())
    return saved_state(program, workdir), progress


def train(program: Program, workdir: Path, stop_at: int = 0) -> State:
    """Train it to its end, or until a signal that comes before step `stop_at`; its newest saved state."""
    seen: list[int] = []
    hooks = loop.Hooks(
        before_call=lambda first, last: seen.append(first),
        stop_signal=lambda: signal.SIGTERM if stop_at and seen and seen[-1] >= stop_at else 0,
    )
    try:
        loop.train(program, workdir, hooks)
    except stopping.Interrupted:
        assert stop_at
    else:
        assert not stop_at, "it was not stopped"
    return loop.restore(program, workdir / "checkpoints")[0]


def train_resumed(program: Program, root: Path, stop_at: int) -> State:
    """Train it in `root`/whole, and stopped and resumed in `root`/stopped: both end with the same bits, the state."""
    whole = train(program, root / "whole")
    train(program, root / "stopped", stop_at)
    assert saving.state_sha256(train(program, root / "stopped")) == saving.state_sha256(whole)
    return whole


def assert_states_close(one: State, other: State, rtol: float, atol: float) -> None:
    """Compare every leaf; where the states lie does not matter."""
    for a, b in zip(jax.tree.leaves(jax.device_get(one)), jax.tree.leaves(jax.device_get(other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def draw_few() -> None:
    """The stand-in for Fashion-MNIST has 600 and 200 pictures; a hook for forked commands."""
    standin.fashion.__defaults__ = (600, 200)


# ---- what a run leaves ------------------------------------------------------------------------------------------------


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    """The logged rows."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what a clock decides."""
    return [{name: value for name, value in row.items() if name != "examples_per_second"} for row in rows]


def summary(workdir: Path) -> dict[str, Any]:
    return dict(json.loads((workdir / "summary.json").read_text()))
