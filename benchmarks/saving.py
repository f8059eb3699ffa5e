"""What saving costs a run: the seconds for which a save holds the loop up, and the loop with saves beside the loop without."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdl import environment
from fdl.types import Duration

DEFAULT = ["fashion_cnn", "fashion_mlp"]
SAVES = 3


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """One row an experiment: the run at its own `save_every`, evaluations off, with and without its saves."""
    environment.keep_freed_memory()
    environment.enable_compile_cache()
    return [_one(name, rounds, data_dir) for name in only or DEFAULT]


def _one(name: str, rounds: int, data_dir: str | None) -> dict[str, Any]:
    from fdl.checkpoint import saving
    from fdl.data import Request, pipeline
    from fdl.distributed import layouts
    from fdl.experiment import load_experiment
    from fdl.train import loop
    from fdl.train.program import build

    experiment = load_experiment(name, ["data.validation=0"])
    data = pipeline.load(experiment.data, Request(data_dir=Path(data_dir) if data_dir else None))
    whole = build(experiment, data, 0, layouts.choose_layout("auto"))
    interval = round(whole.period("save"))
    steps = SAVES * interval
    saver = saving.saver
    held: list[float] = []

    @contextlib.contextmanager
    def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with saver(*args, **kwargs) as save:

            def call(*args: Any) -> None:
                began = time.perf_counter()
                save(*args)
                held.append(time.perf_counter() - began)

            yield call

    def run(save_every: int) -> float:
        shorter = dataclasses.replace(experiment, steps=Duration(steps), save_every=Duration(save_every))
        program = build(shorter, data, 0, whole.layout)
        program.__dict__["train"] = whole.train  # the schedule's length aside, the same program: not compiled again
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            return loop.train(program, Path(folder)).seconds

    saving.saver = timed
    try:
        run(steps)  # warms up
        held.clear()
        with_saves, without = [], []
        for _ in range(rounds):
            with_saves.append(run(interval))
            without.append(run(steps))
    finally:
        saving.saver = saver
    ratios = [a / b for a, b in zip(with_saves, without, strict=True)]
    between = statistics.median(without) / SAVES
    return {
        "experiment": name, "steps between saves": interval, "rounds": rounds,
        "a save holds the loop ms": f"{1e3 * statistics.median(held):.1f} ({1e3 * min(held):.1f}-{1e3 * max(held):.1f})",
        "share of the run": f"{statistics.median(held) / between:.2%}",
        "with / without": f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})",
    }  # fmt: skip
