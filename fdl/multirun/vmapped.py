"""Several runs of one small experiment at once, one per seed: the same step, mapped over the seeds, looped on the device.

A small net's step takes less time than its dispatch. Here the rows are on the device and the loop over the steps runs
there too, so that five seeds of a net on 2-D points train faster than one of them alone in the ordinary loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data import pipeline
from fdl.rundir.rows import Row
from fdl.tasks.task import View, measures
from fdl.train import resident
from fdl.train.bad_steps import find_bad_step
from fdl.train.evaluation import metrics_of, view
from fdl.train.program import Program
from fdl.train.progress import Progress, accumulate, finish_row, update_best
from fdl.train.row_log import row_header
from fdl.train.schedule import steps_until_due
from fdl.types import Arrays, Metrics, is_due


@dataclasses.dataclass(frozen=True)
class Finished:
    """The result of one seed.

    Attributes:
        rows: as in metrics.jsonl of a single run of that seed.
        metrics: "train/...", "eval/..." and "test/..." of the state that validation chose (without it, of the last).
        failed: why there are no metrics: its loss, or gradient, was not finite; "" where it succeeded.
        view: the trained model; None where it failed.
    """

    seed: int
    rows: list[Row]
    metrics: Metrics
    steps: int
    best_step: int | None
    failed: str
    view: View | None


def why_not_together(program: Program) -> str:
    """Say why the seeds of this experiment cannot be trained together; "" where they can."""
    experiment, splits = program.experiment, program.data.splits
    if program.layout.num_devices > 1:
        return "there are several devices"
    if experiment.patience or experiment.stop_at is not None or experiment.on_bad_step != "stop":
        return "patience, stop_at and on_bad_step would end the seeds at different steps"
    if measures(experiment.task):
        return "the task has metrics of whole splits"
    if program.steps_between("sample") or experiment.init_from or experiment.cache_frozen or experiment.updates:
        return "sample_every, init_from, cache_frozen and updates are for a single run"
    if not resident.is_small([rows for rows in (splits.train, splits.validation, splits.test) if rows is not None]):
        return "the data are too large to lie on the device"
    return program.compiled.why_not_looped


def train_together(
    program: Program, seeds: Sequence[int], between: Callable[[], None] = lambda: None, test: bool = True
) -> list[Finished]:
    """Train a run of each seed as `fdl.train.train` would, to rounding: the same parameters, batches and draws.

    Args:
        program: the experiment's, of any seed; see `why_not_together`.
        between: called regularly; may raise to leave early (nothing is kept then).
        test: whether the test split is looked at.
    """
    programs = [dataclasses.replace(program, seed=seed) for seed in seeds]
    keys = jnp.stack([each.compiled.key for each in programs])
    state = best = jax.jit(jax.vmap(program.init))(keys)
    splits, total = program.data.splits, program.total_steps
    run = jax.jit(jax.vmap(resident.many_steps(program.train_step), in_axes=(0, 0, (0, None, None))))
    score, choose = jax.jit(jax.vmap(program.eval_step, (0, None))), jax.jit(_choose)
    on_device = jax.device_put(splits.train)
    periods = [program.steps_between("log"), program.steps_between("eval")]

    def evaluate(variables: Any, arrays: Arrays) -> list[Metrics]:
        batches = pipeline.padded_batches(arrays, program.experiment.eval_batch_size)
        parts = jax.device_get([score(variables, batch) for batch in batches])
        return [metrics_of(program, jax.tree.map(lambda leaf, i=i: leaf[i], parts)) for i in range(len(seeds))]

    progress: list[Progress] = [Progress() for _ in seeds]
    rows: list[list[Row]] = [[] for _ in seeds]
    failed = [""] * len(seeds)
    at = 0
    while at < total:
        between()
        count = steps_until_due(at, total, periods)
        order = np.stack([resident.rows_of_call(each.stream, at, count) for each in programs])
        state, metrics = run(state, {"rows": order}, (keys, on_device, np.int32(count)))
        first, at = at + 1, at + count
        evaluated: Sequence[Metrics] = [{}] * len(seeds)
        if splits.validation is not None and (is_due(at, program.steps_between("eval")) or at == total):
            evaluated = evaluate(state.variables, splits.validation)
        found = jax.device_get(metrics)
        for i in range(len(seeds)):
            mine = jax.tree.map(lambda leaf, i=i, count=count: leaf[i, :count], found)
            if not failed[i] and mine.first_bad.any():
                number = int(np.argmax(mine.first_bad > 0))
                one = jax.tree.map(lambda leaf, number=number: leaf[number], mine)
                failed[i] = str(find_bad_step(program, first + number, one))
            if failed[i]:
                continue
            progress[i], row = _row(program, at, accumulate(progress[i], mine), evaluated[i])
            rows[i] += [row] if row else []
        if evaluated[0]:
            best = choose(np.array([each.best_step == at for each in progress]), state, best)
    chosen = best if splits.validation is not None else state
    parts = {"train": splits.train, "eval": splits.validation, "test": splits.test if test else None}
    found = {name: evaluate(chosen.variables, part) for name, part in parts.items() if part is not None}
    return [
        Finished(seed, rows[i], {}, total, None, failed[i], None)
        if failed[i]
        else Finished(
            seed, rows[i], {f"{name}/{k}": v for name, of in found.items() for k, v in of[i].items()}, total,
            progress[i].best_step, "", view(programs[i], jax.tree.map(lambda leaf: leaf[i], chosen.variables)),
        )
        for i, seed in enumerate(seeds)
    ]  # fmt: skip


def _row(program: Program, at: int, progress: Progress, evaluated: Metrics) -> tuple[Progress, Row]:
    """Make the row of step `at` ({}: none is due), as a run of one seed writes it."""
    header = row_header(program, at)
    if is_due(at, program.steps_between("log")):
        progress = finish_row(progress, program.experiment.task, header)
    if evaluated:
        progress = update_best(progress, program.experiment, at, evaluated)
        progress = progress.with_row(header | {f"eval/{name}": value for name, value in evaluated.items()})
    return dataclasses.replace(progress, row={}), progress.row


def _choose(chosen: Any, new: Any, old: Any) -> Any:
    def each(new: Any, old: Any) -> Any:
        return jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(each, new, old)
