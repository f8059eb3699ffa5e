"""The input pipelines alone, in rows a second, beside the rate at which the compiled step of an experiment uses them up."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fdl import environment
from fdl.types import UserError

SECONDS = 3.0  # of each measurement
PICTURES, HEIGHT, WIDTH = 96, 375, 500
STEP_ROWS = 8
"""The batch of ResNet-50's step, which is slow on a CPU; its pipeline has the experiment's own."""

PARTS = {
    "idx": ("fashion_cnn", "fashion_mlp"),
    "text": ("shakespeare_lstm",),
    "jpeg": ("imagenet_resnet50",),
}


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """A row an experiment and feed.

    Raises:
        UserError: a part is unknown.
    """
    for name in only:
        if name not in PARTS:
            raise UserError(f"{name}: there is no such part; there are {', '.join(PARTS)}")
    environment.keep_freed_memory()
    environment.enable_compile_cache()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part, experiments in PARTS.items():
            if only and part not in only:
                continue
            if part == "jpeg":
                draw_photographs(Path(folder) / "imagenet")
            for name in experiments:
                rows += _one(part, name, rounds, folder if part == "jpeg" else data_dir)
    return rows


def draw_photographs(root: Path, count: int = PICTURES) -> None:
    """JPEGs of smooth noise in two classes, train/ and val/."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count + 4):
        place = root / ("train" if number < count else "val") / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (HEIGHT // 12, WIDTH // 12, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture.save(place / f"{number}.jpg", "JPEG", quality=90)


def _one(part: str, name: str, rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    import jax

    from fdl.data import Request, pipeline
    from fdl.distributed import layouts
    from fdl.experiment import load_experiment
    from fdl.train import program

    experiment = load_experiment(name, ["data.validation=0"])
    data = pipeline.load(experiment.data, Request(data_dir=Path(data_dir) if data_dir else None))
    rows, size = data.splits.train, experiment.batch_size
    total = len(jax.tree.leaves(rows)[0])
    stream = pipeline.Stream(0, size, total)

    def pipe(kind: Any) -> float:
        batches = pipeline.feed(kind, rows, stream, 0, 10**6)
        for _ in range(3):
            next(batches)
        began, spent, count = time.perf_counter(), 0.0, 0
        while spent < SECONDS:
            next(batches)
            count, spent = count + 1, time.perf_counter() - began
        return count * size / spent

    batch_size = STEP_ROWS if part == "jpeg" else size
    built = program.build(
        dataclasses.replace(experiment, batch_size=batch_size), data, 0, layouts.choose_layout("auto")
    )

    @functools.cache
    def resident() -> Any:
        batches = pipeline.feed("numpy", rows, pipeline.Stream(0, batch_size, total), 0, 1)
        return layouts.shard(next(batches), built.layout)

    def step() -> float:
        state, _ = built.compiled.train_step(built.compiled.initial_state(), resident(), built.compiled.key)
        jax.block_until_ready(state)
        began, spent, count = time.perf_counter(), 0.0, 0
        while spent < SECONDS:
            state, metrics = built.compiled.train_step(state, resident(), built.compiled.key)
            jax.block_until_ready(metrics)
            count, spent = count + 1, time.perf_counter() - began
        return count * batch_size / spent

    kinds = ["numpy"] + ["tf"] * (part != "jpeg" and importlib.util.find_spec("tensorflow") is not None)
    found: dict[str, list[float]] = {kind: [] for kind in [*kinds, "step"]}
    for _ in range(rounds):
        for kind in found:
            found[kind].append(step() if kind == "step" else pipe(kind))
    text = {kind: f"{statistics.median(v):,.0f} ({min(v):,.0f}-{max(v):,.0f})" for kind, v in found.items()}
    ahead = {kind: [a / b for a, b in zip(found[kind], found["step"], strict=True)] for kind in kinds}
    return [
        {
            "pipeline": part, "experiment": name, "rows from": data.splits.source, "batch": size, "feed": kind,
            "rows/s": text[kind], "step rows/s": f"{text['step']}, batch {batch_size}",
            "pipeline/step": f"{statistics.median(ahead[kind]):.1f} ({min(ahead[kind]):.1f}-{max(ahead[kind]):.1f})",
        }
        for kind in kinds
    ]  # fmt: skip
