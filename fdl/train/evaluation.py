"""A trained model over whole splits: exact metrics, and the view of it that reports and predictions use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fdl.data import pipeline
from fdl.data.fitted import FittedOps
from fdl.distributed import layouts, processes
from fdl.tasks.task import View, measures
from fdl.train import step
from fdl.train.program import Program
from fdl.types import Arrays, Metrics, count_examples, take


def evaluate(
    program: Program, variables: Mapping[str, Any], arrays: Arrays, between: Callable[[], None] = lambda: None
) -> Metrics:
    """Compute the task's metrics over every row of `arrays`, each counted exactly once.

    Args:
        between: called after each batch (in every process equally often); may raise to leave early.
    """
    parts: list[step.Sums] = []
    for batch in pipeline.padded_batches(arrays, program.experiment.eval_batch_size, *program.layout.feed):
        if parts and jax.default_backend() == "cpu":
            jax.block_until_ready(parts[-1])  # or the temporaries of several batches would be in memory at once
        parts.append(program.compiled.eval_step(variables, layouts.shard(batch, program.layout)))
        between()
    metrics = metrics_of(program, jax.device_get(parts))
    if measures(program.experiment.task):
        metrics |= program.experiment.task.measure(view(program, variables, between), arrays)
    return metrics


def metrics_of(program: Program, parts: Sequence[step.Sums]) -> Metrics:
    """Compute the task's metrics from the weighted sums of every batch."""
    means = {}
    for name in parts[0]:
        total, weight = (math.fsum(float(part[name][i]) for part in parts) for i in (0, 1))
        means[name] = total / weight if weight else math.nan
    return dict(program.experiment.task.finish(means))


def view(program: Program, variables: Mapping[str, object], between: Callable[[], None] = lambda: None) -> View:
    """Build the view of the trained model for a task, report or prediction; every process must call it.

    Its functions compute on the devices of this process, and may then be called by any process alone.

    Args:
        between: called after each batch; may raise to leave early.
    """
    prepare, compiled, size = program.data.prepare, program.compiled, program.experiment.eval_batch_size
    local = processes.to_host(variables)

    def over(arrays: Arrays) -> Iterator[tuple[Arrays, Any]]:
        on_device = jax.device_put(local)
        total = count_examples(arrays)
        for first, batch in zip(range(0, total, size), pipeline.padded_batches(arrays, min(size, total)), strict=True):
            decoded = jax.device_get(compiled.decode_step(on_device, batch))
            rows = slice(min(size, total - first))
            yield (
                jax.device_get(take(prepare(batch, None), rows)),
                jax.tree.map(lambda leaf, rows=rows: leaf[rows], decoded),
            )
            between()

    def outputs(arrays: Arrays) -> Any:
        on_device = jax.device_put(local)
        total = count_examples(arrays)
        columns = {name: column for name, column in arrays.items() if name != "mask"}
        parts = []
        for batch in pipeline.padded_batches(columns, min(size, total)):
            del batch["mask"]
            parts.append(jax.device_get(compiled.output_step(on_device, batch)))
            between()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *parts)

    def prepared(arrays: Arrays) -> Arrays:
        return jax.device_get(prepare(arrays, None))

    def augment(ops: FittedOps, arrays: Arrays) -> Arrays:
        """Augment the rows, each as in an epoch of its own."""
        rows = jax.numpy.arange(count_examples(arrays), dtype=np.uint32)
        draw = step.example_draw(jax.random.fold_in(jax.random.key(program.seed), 0), rows)
        return ops(arrays | {"step": 0, "seen": rows * program.stream.num_examples}, draw)

    def augmented(arrays: Arrays) -> Arrays:
        return jax.device_get(prepare(augment(program.data.augment, arrays), None))

    def changed_by(ops: FittedOps) -> Callable[[Arrays], Arrays]:
        return lambda arrays: jax.device_get(augment(ops, arrays))

    fitted = zip(program.data.augment.ops, program.data.augment.statistics, strict=True)
    augmentations = [(type(op).__name__, changed_by(FittedOps((op,), (statistics,)))) for op, statistics in fitted]
    return View(
        program.data.splits, program.experiment.model, local, outputs, prepared, augmented, program.seed, over,
        program.data.encode, augmentations,
    )  # fmt: skip
