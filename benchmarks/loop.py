"""The loop's tax: training as it is (feed, copies, metrics, logs) beside the bare compiled step on one batch that stays.

Where the experiment's rows lie on the device by themselves, both loops: that one and the one that is fed.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from fdl import environment

DEFAULT = ["fashion_cnn", "fashion_mlp", "california_mlp"]
SECONDS = 6.0  # of each measurement
EVERY = 50  # steps between two rows, the experiments' default


def measure(only: list[str], rounds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """One row an experiment: images/s of the bare step, the loop and the pipeline alone, and their ratios."""
    environment.keep_freed_memory()
    environment.enable_compile_cache()
    return [_one(name, rounds, data_dir) for name in only or DEFAULT]


def _one(name: str, rounds: int, data_dir: str | None) -> dict[str, Any]:
    from fdl.data import Request, pipeline
    from fdl.distributed import layouts
    from fdl.experiment import load_experiment
    from fdl.train import loop as train
    from fdl.train.program import build

    experiment = load_experiment(name, [f"log_every={EVERY}", "data.validation=0"])
    data = pipeline.load(
        experiment.data, Request(data_dir=Path(data_dir) if data_dir else None), experiment.num_examples
    )
    program = build(experiment, data, 0, layouts.choose_layout("auto"))
    ways = {"loop": "none"} if program.compiled.resident_rows is None else {"loop": "none", "fed loop": "false"}
    size, rows = experiment.batch_size, data.splits.train
    stream = pipeline.Stream(0, size, len(jax.tree.leaves(rows)[0]))
    batch = layouts.shard(next(pipeline.numpy_feed(rows, stream, 0, 1)), program.layout)

    def bare(steps: int) -> float:
        state = program.compiled.initial_state()
        for i in range(steps + 3):
            if i == 3:  # the first steps warm up
                jax.block_until_ready(state)
                began = time.perf_counter()
            state, _ = program.compiled.train_step(state, batch, program.compiled.key)
        jax.block_until_ready(state)
        return steps * size / (time.perf_counter() - began)

    def pipe(steps: int) -> float:
        batches = pipeline.feed(experiment.data.feed, rows, stream, 0, steps + 10)
        for _ in range(10):
            next(batches)
        began = time.perf_counter()
        for _ in range(steps):
            next(batches)
        return steps * size / (time.perf_counter() - began)

    def loop(steps: int, resident: str) -> float:
        sets = [f"log_every={EVERY}", "data.validation=0", f"steps={steps}", f"data.resident={resident}"]
        part = build(load_experiment(name, sets), data, 0, program.layout)
        # The schedule's length aside, the same programs: not compiled again.
        part.compiled.__dict__["train_step"] = program.compiled.train_step
        if part.compiled.resident_rows is not None:
            part.compiled.__dict__["train_many"] = program.compiled.train_many
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            train.train(part, Path(folder), train.Hooks())
            from fdl.rundir import logs

            rates = [row["examples_per_second"] for row in logs.read_rows(Path(folder))]
        return statistics.harmonic_mean(rates)

    steps = max(2, int(bare(20) * SECONDS / size) // EVERY) * EVERY
    figures: dict[str, list[float]] = {name: [] for name in ("bare", *ways, "pipeline")}
    for _ in range(rounds):
        figures["bare"].append(bare(steps))
        for way, resident in ways.items():
            figures[way].append(loop(steps, resident))
        figures["pipeline"].append(pipe(steps))
    tax = [b / t for b, t in zip(figures["bare"], figures["loop"], strict=True)]
    ahead = [p / b for p, b in zip(figures["pipeline"], figures["bare"], strict=True)]
    return {
        "experiment": name, "batch": size, "steps": steps, "rounds": rounds,
        **{f"{k} images/s": f"{statistics.median(v):,.0f} ({min(v):,.0f}-{max(v):,.0f})" for k, v in figures.items()},
        "bare/loop": f"{statistics.median(tax):.3f} ({min(tax):.3f}-{max(tax):.3f})",
        "pipeline/bare": f"{statistics.median(ahead):.1f} ({min(ahead):.1f}-{max(ahead):.1f})",
    }  # fmt: skip
