"""Autoencoders, clusters, segmentation, detection and clips: stopped and resumed to the same bits, on one device and two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import program_of, train_resumed

from fdl.data import Facts, Request, Splits
from fdl.distributed import layouts
from fdl.experiment import Experiment, load_experiment
from fdl.train.evaluation import evaluate

RNG = np.random.default_rng(0)


def source(targets: Any, shape: tuple[int, ...], classes: int = 3, **extra: Any) -> Callable[[Request], Splits]:
    """A source of 24 + 8 + 10 rows of random pictures."""
    rows = {"inputs": RNG.integers(0, 256, (42, *shape)).astype(np.uint8), "targets": targets}
    cuts = (slice(24), slice(32, 42), slice(24, 32))
    train, test, validation = (jax.tree.map(lambda leaf: leaf[cut], rows) for cut in cuts)
    facts = Facts(classes=tuple("abc"[:classes]), extra=extra)
    return lambda request: Splits("toy", "builtin", "made here", train, test, validation, facts, sha256="0")


def labels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 3, (42, *shape)).astype(np.int32)


def boxes() -> dict[str, np.ndarray]:
    corners = RNG.random((42, 3, 2)) * 20
    held = np.concatenate([corners, corners + 6 + RNG.random((42, 3, 2)) * 8], -1).astype(np.float32)
    return {"boxes": held, "classes": RNG.integers(-1, 3, (42, 3)).astype(np.int32)}


SMALL = [
    "batch_size=8",
    "eval_batch_size=8",
    "steps=6",
    "eval_every=3",
    "save_every=2",
    "log_every=2",
    "data.validation=0",
]
CASES: dict[str, tuple[Callable[[Request], Splits], list[str]]] = {
    "mnist_vae": (source(labels(), (8, 8, 1)), ["model.dense=6", "model.latent=3", "task.samples=4"]),
    "fashion_autoencoder": (source(labels(), (8, 8, 1)), ["model.filters=3,4", "model.latent=3"]),
    "mnist_dec": (
        source(labels(), (8, 8, 1)),
        ["model.filters=3,4", "model.latent=2", "model.clusters=3", "updates.kmeanscentres.start=2",
         "updates.targetdistribution.start=2", "updates.targetdistribution.every=2", "data.augment.shift.pixels=1"],
    ),
    "camvid_unet": (
        source(labels(12, 10).astype(np.uint8), (12, 10, 3)), ["model.widths=4,6", "model.shrink=2", "model.dropout=0"]
    ),
    "bccd_detector": (
        source(boxes(), (32, 40, 3)),
        ["model.stage_sizes=1,1,1", "model.width=4", "model.head=4", "data.augment.mosaic.probability=0"],
    ),
    "moving_digits_video": (source(labels(), (4, 10, 10, 1)), ["model.filters=3,4"]),
    "moving_digits_lstm": (source(labels(), (4, 10, 10, 1)), ["model.filters=3,4", "model.width=5"]),
}  # fmt: skip


def small(name: str) -> Experiment:
    load, changes = CASES[name]
    made = load_experiment(name, [*SMALL, *changes])
    return dataclasses.replace(made, data=dataclasses.replace(made.data, load=load))


OFTEN = ("mnist_dec", "bccd_detector")
"""What a default run of the suite tries: updates between steps, and targets of several arrays."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in CASES]
)
def test_a_stopped_run_resumes_to_the_same_bits_and_two_devices_agree(name: str, tmp_path: Path) -> None:
    program = program_of(small(name))
    whole = train_resumed(program, tmp_path, stop_at=3)
    metrics = evaluate(program, whole.variables, program.data.splits.test)
    assert program.experiment.task.monitor in metrics
    assert all(np.isfinite(value) for value in metrics.values())
    batch = jax.tree.map(lambda column: np.asarray(column[:8]), program.data.splits.train)
    losses = []
    for held in (program, program_of(small(name), "pmap", 2)):
        state = held.compiled.initial_state()
        _, step = held.compiled.train_step(state, layouts.shard(batch, held.layout), held.compiled.key)
        assert int(step.first_bad) == 0
        losses.append(float(step.sums["loss"][0] / step.sums["loss"][1]))
    # Each device draws the noise of its own codes.
    assert losses[0] == pytest.approx(losses[1], rel=0.2 if name == "mnist_vae" else 1e-4)
