"""The loop: build the programs, restore or begin, train, evaluate, save, and sum the run up."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from fdl import checkpoint, logs, parallel, step
from fdl.data import pipeline
from fdl.experiment import Experiment
from fdl.tasks.task import View
from fdl.types import Arrays, Batch, Duration, Metrics, RunError, count_examples, is_due, take

Progress = dict[str, Any]
"""The host's side of a run, saved with every checkpoint as JSON: see `begin`."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One experiment with its data on one layout. What it needs of compiled code is made when first asked for.

    Attributes:
        total_steps: of the whole run.
    """

    experiment: Experiment
    data: pipeline.Prepared
    layout: parallel.Layout
    seed: int
    total_steps: int

    def period(self, name: str) -> float:
        """How many steps lie between two of the loop's "log"s, "eval"s, "save"s or "sample"s; 0: never."""
        duration: Duration = getattr(self.experiment, f"{name}_every")
        return duration.in_steps(self.experiment.batch_size, count_examples(self.data.splits.train), self.total_steps)

    @functools.cached_property
    def key(self) -> jax.Array:
        """The key of all randomness but the data's order."""
        return jax.device_put(jax.random.key(self.seed), self.layout.replicated)

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        """What the training and the evaluation step have in common."""
        model = parallel.localise(self.experiment.model, self.layout)
        return {
            "model": model,
            "prepare": self.data.prepare,
            "task": self.experiment.task,
            "axis_name": self.layout.axis_name,
        }

    def _init(self, key: jax.Array) -> step.State:
        row = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), self.data.splits.test)
        optimizer = self.experiment.optimizer
        return step.init_state(
            key, row, model=self._settings["model"], prepare=self.data.prepare,
            tx=optimizer.build(self.total_steps)[0], ema=optimizer.ema > 0,
        )  # fmt: skip

    def start(self) -> step.State:
        """A new state at step 0."""
        return parallel.compile_init(self._init, self.key, self.layout)

    @functools.cached_property
    def like(self) -> step.State:
        """The state's shapes, dtypes and shardings."""
        return parallel.spec(jax.eval_shape(self._init, self.key), self.layout.replicated)

    @functools.cached_property
    def train(self) -> Any:
        """(state, batch, key) -> (state, metrics), compiled; the state is donated."""
        optimizer = self.experiment.optimizer
        tx, learning_rate = optimizer.build(self.total_steps)
        function = functools.partial(
            step.train_step, tx=tx, learning_rate=learning_rate, ema=optimizer.ema, augment=self.data.augment,
            **self._settings,
        )  # fmt: skip
        batch = pipeline.row_spec(self.data.splits.train, self.experiment.batch_size)
        return parallel.compile_train(function, self.like, batch, self.key, self.layout)

    @functools.cached_property
    def evaluate(self) -> Any:
        """(variables, batch) -> masked sums, compiled."""
        function = functools.partial(step.eval_step, **self._settings)
        rows = take(self.data.splits.test, slice(0, 1))
        batch = next(pipeline.padded_batches(rows, self.experiment.eval_batch_size))
        return parallel.compile_eval(function, self.like.variables, batch, self.layout)


def build(experiment: Experiment, data: pipeline.Prepared, seed: int, mode: Literal["auto", "pmap", "jit"]) -> Program:
    """The program of a run on the devices at hand.

    Raises:
        UserError: a batch does not split over the devices, or the layout cannot be had here.
    """
    layout = parallel.choose_layout(mode)
    sizes = {"batch_size": experiment.batch_size, "eval_batch_size": experiment.eval_batch_size}
    parallel.check_divides(layout, **sizes)
    total = Duration.parse(experiment.steps).in_steps(experiment.batch_size, count_examples(data.splits.train))
    return Program(experiment, data, layout, seed, round(total))


def evaluate(
    program: Program, variables: Mapping[str, Any], arrays: Arrays, between: Callable[[], None] = lambda: None
) -> Metrics:
    """The task's metrics over every row of `arrays`, each counted exactly once.

    Args:
        between: called after each batch; may raise to leave early.
    """
    parts = []
    for batch in pipeline.padded_batches(arrays, program.experiment.eval_batch_size):
        parts.append(program.evaluate(variables, parallel.shard(batch, program.layout)))
        between()
    sums = jax.tree.map(lambda *leaves: math.fsum(map(float, leaves)), *jax.device_get(parts))
    count = sums.pop("count")
    return program.experiment.task.finish({name: value / count for name, value in sums.items()})


def view(program: Program, variables: Mapping[str, Any]) -> View:
    """The trained model as reports and predictions use it."""
    model, prepare = program.experiment.model, program.data.prepare
    size = program.experiment.eval_batch_size
    predict = jax.jit(functools.partial(step.predict_step, model=model, prepare=prepare))
    local = jax.device_get(variables)

    def outputs(arrays: Arrays) -> Any:
        total = count_examples(arrays)
        inputs = {"inputs": arrays["inputs"]}
        parts = [predict(local, batch) for batch in _without_mask(pipeline.padded_batches(inputs, min(size, total)))]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *jax.device_get(parts))

    def prepared(arrays: Arrays) -> Arrays:
        return jax.device_get(prepare(arrays, None))

    def augmented(arrays: Arrays) -> Arrays:
        rows = jax.numpy.arange(count_examples(arrays))
        draw = step.example_draw(jax.random.fold_in(jax.random.key(program.seed), 0), rows)
        return jax.device_get(prepare(program.data.augment(arrays, draw), None))

    return View(program.data.splits, model, local, outputs, prepared, augmented, program.seed)


def _without_mask(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield {"inputs": batch["inputs"]}


# ---- signals --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """The run was told to stop and has saved itself; `signum` is the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """`asked()` is the first SIGTERM or SIGINT that came in, else 0. A second one ends the process at once."""
    seen: list[int] = []

    def note(signum: int, _frame: Any) -> None:
        if seen:
            os._exit(128 + signum)
        seen.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0  # only the main thread may set handlers; a caller's thread keeps its own
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


# ---- the loop -------------------------------------------------------------------------------------------------------


def begin() -> Progress:
    """The progress of a run that has not started.

    settled: the last step whose evaluation and row are done; row: what is already known of an unfinished row;
    best_step, best, since_best: the best evaluation so far and how many came after it; stopped, limits: why the run
    ended early and the limits that made it; sums, count: training metrics since the last row; seconds: time in the
    loop over all starts.
    """
    return {
        "settled": 0, "row": {}, "best_step": None, "best": None, "since_best": 0, "stopped": "", "limits": [],
        "sums": {}, "count": 0, "seconds": 0.0,
    }  # fmt: skip


def restore(program: Program, root: Path) -> tuple[step.State, Progress]:
    """The newest good checkpoint under `root`, or the start."""
    checkpoint.clean(root)
    saved = checkpoint.latest(root)
    if saved is None:
        return program.start(), begin()
    return checkpoint.restore(saved, program.like), dict(saved.progress)


def restore_best(program: Program, root: Path) -> tuple[step.State, int]:
    """The state that the validation split chose (the last one where there is no validation), and its step.

    Raises:
        RunError: there is no checkpoint, or none verifies.
    """
    saved = checkpoint.latest(root)
    if saved is None:
        raise RunError(f"there is no checkpoint in {root}; train first")
    best = saved.progress["best_step"]
    chosen = checkpoint.at_step(root, best) if best not in (None, saved.step) else saved
    if chosen is None:
        raise RunError(
            f"the best checkpoint, step {best}, is missing or damaged in {root}; train again in a new --workdir"
        )
    return checkpoint.restore(chosen, program.like), chosen.step


def arrive(program: Program, at: int, metrics: Any, progress: Progress) -> tuple[Progress, logs.Row]:
    """Take in the metrics of step `at`: the new progress, and the row to write where one is due.

    Raises:
        RunError: the loss or the gradient is not finite.
    """
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"{bad[0]} is {values[bad[0]]} at step {at}; nothing non-finite was saved; "
            f"try a lower optimizer.learning_rate (now {values['learning_rate']:g}) or --set optimizer.clip_norm=1"
        )
    sums = {name: progress["sums"].get(name, 0.0) + value for name, value in values.items()}
    count = progress["count"] + 1
    if not is_due(at, program.period("log")):
        return progress | {"sums": sums, "count": count}, {}
    means = {name: total / count for name, total in sums.items()}
    row = {
        "step": at,
        "epoch": at * program.experiment.batch_size / count_examples(program.data.splits.train),
        **{f"train/{name}": value for name, value in program.experiment.task.finish(means).items()},
    }
    return progress | {"sums": {}, "count": 0}, row


def judge(program: Program, at: int, metrics: Metrics, progress: Progress) -> Progress:
    """Hold an evaluation against the best so far, the patience and the target. A NaN is never the best.

    Of equals the later one is the best (a small validation split has many, and training has gone on), but an equal does
    not renew the patience.
    """
    experiment, task = program.experiment, program.experiment.task
    value, best = metrics[task.monitor], progress["best"]
    sign = 1 if task.better == "max" else -1
    if math.isfinite(value) and (best is None or sign * value >= sign * best):
        progress = progress | {"best_step": at, "best": value}
    improved = progress["best"] is not None and progress["best"] != best
    progress = progress | {"since_best": 0 if improved else progress["since_best"] + 1}
    if experiment.stop_at is not None and sign * value >= sign * experiment.stop_at:
        shown = f"{experiment.stop_at:.4g} {task.monitor}"
        if task.monitor.endswith("accuracy"):
            shown = f"{100 * experiment.stop_at:.4g}% {task.monitor}"
        return progress | {"stopped": f"Reached {shown} so cancelling training!", "limits": limits(program)}
    if experiment.patience is not None and progress["since_best"] >= experiment.patience:
        why = f"No better {task.monitor} in {experiment.patience} evaluations"
        why += f", the best at step {progress['best_step']}: stopped early."
        return progress | {"stopped": why, "limits": limits(program)}
    return progress


def limits(program: Program) -> list[Any]:
    """What ends a run before its last step."""
    return [program.experiment.stop_at, program.experiment.patience]


def train(
    program: Program, workdir: Path, say: Callable[[str], None], first_step: Callable[[], None] = lambda: None
) -> Progress:
    """Run the steps that are left; the progress at the end.

    A step's metrics are read after the next one is dispatched, so the host never keeps the device waiting; only an
    evaluation, a save and a sample wait.

    Args:
        say: takes a line for the user.
        first_step: called when the first step of this start has finished.

    Raises:
        Interrupted: told to stop, and saved.
        RunError: the loss is not finite, or a checkpoint cannot be saved.
    """
    experiment, total, root = program.experiment, program.total_steps, workdir / "checkpoints"
    state, progress = restore(program, root)
    at = start = int(state.step)
    if at:
        say(f"resumed at step {at} of {total}")
    if progress["stopped"] and progress["limits"] != limits(program):
        progress = progress | {"stopped": ""}  # the user moved what had stopped it
    if at >= total or progress["stopped"]:
        return progress
    period = {name: program.period(name) for name in ("eval", "save", "sample")}
    num_examples = count_examples(program.data.splits.train)
    stream = pipeline.Stream(program.seed, experiment.batch_size, num_examples)
    batches = pipeline.feed(experiment.data.feed, program.data.splits.train, stream, at, total)
    waiting: tuple[int, Any] | None = None
    clock, timed_from = time.monotonic(), at
    workdir.mkdir(parents=True, exist_ok=True)

    with (
        asked_to_stop() as asked,
        logs.writer(workdir, at) as write,
        logs.progress(experiment.name, start, total) as tell,
        checkpoint.saver(root) as save,
    ):

        def leave_if_asked() -> None:
            if asked():
                raise Interrupted(asked())

        def emit(row: logs.Row) -> None:
            nonlocal clock, timed_from
            if "train/loss" in row and row["step"] > timed_from:
                now = time.monotonic()
                row["examples_per_second"] = (row["step"] - timed_from) * experiment.batch_size / (now - clock)
                progress["seconds"] += now - clock
                clock, timed_from = now, row["step"]
            write(row)
            tell(row["step"], row)

        while True:
            last = at == total
            due = {name: is_due(at, steps) or (last and steps > 0) for name, steps in period.items()}
            if asked() or ((due["eval"] or due["save"] or due["sample"]) and progress["settled"] != at):
                row: logs.Row = dict(progress["row"])
                if waiting:
                    progress, arrived = arrive(program, *waiting, progress)
                    row, waiting = row | arrived, None
                    if "train/loss" in row:
                        progress = progress | {"row": row}
                paused = time.monotonic()
                try:
                    improved = False
                    if due["eval"] and program.data.splits.validation is not None and progress["settled"] != at:
                        metrics = evaluate(program, state.variables, program.data.splits.validation, leave_if_asked)
                        row = {"step": at, "epoch": at * experiment.batch_size / num_examples} | row
                        row |= {f"eval/{name}": value for name, value in metrics.items()}
                        progress = judge(program, at, metrics, progress)
                        improved = progress["best_step"] == at
                    if due["sample"]:
                        text = experiment.task.sample(view(program, state.variables))
                        if text:
                            say(text)
                            row = (
                                {"step": at, "epoch": at * experiment.batch_size / num_examples}
                                | row
                                | {"sample": text}
                            )
                except Interrupted:
                    save(at, state, progress)  # not settled: the evaluation is made again after the resume
                    raise
                clock += time.monotonic() - paused
                if row:
                    emit(row)
                progress = progress | {"settled": at, "row": {}}
                if improved or due["save"] or last or progress["stopped"] or asked():
                    save(at, state, progress)
                leave_if_asked()
            if last or progress["stopped"]:
                break
            state, metrics_now = program.train(state, parallel.shard(next(batches), program.layout), program.key)
            if waiting:
                progress, row = arrive(program, *waiting, progress)
                if row:
                    emit(row)
            elif at == start:
                jax.block_until_ready(metrics_now)
                first_step()
                clock, timed_from = time.monotonic(), at + 1
            at += 1
            waiting = at, metrics_now
            tell(at, {})
    if progress["stopped"]:
        say(progress["stopped"])
    return progress


def summarise(program: Program, workdir: Path, progress: Progress) -> tuple[dict[str, Any], View]:
    """Reload the best checkpoint, evaluate it on the test split, and describe the run; with the view for the report."""
    root, splits = workdir / "checkpoints", program.data.splits
    last = checkpoint.latest(root)
    if last is None:
        raise RunError(f"there is no checkpoint in {root}; train first")
    digest = checkpoint.state_sha256(checkpoint.restore(last, program.like))
    state, best_step = restore_best(program, root)
    metrics = {f"test/{k}": v for k, v in evaluate(program, state.variables, splits.test).items()}
    if splits.validation is not None:
        metrics |= {f"eval/{k}": v for k, v in evaluate(program, state.variables, splits.validation).items()}
    baselines = {
        name: {f"test/{k}": v for k, v in m.items()} for name, m in program.experiment.task.baselines(splits).items()
    }
    rows = [row["examples_per_second"] for row in logs.read_rows(workdir) if "examples_per_second" in row]
    summary = {
        "experiment": program.experiment.name,
        "status": "complete" if last.step >= program.total_steps else "stopped early" if progress["stopped"] else "incomplete",
        "stopped": progress["stopped"],
        "steps": last.step,
        "best_step": best_step,
        "seed": program.seed,
        "data": {
            "name": splits.name, "source": splits.source, "where": splits.where, "sha256": splits.sha256,
            "train_examples": count_examples(splits.train),
            "eval_examples": count_examples(splits.validation) if splits.validation is not None else 0,
            "test_examples": count_examples(splits.test),
        },
        "metrics": metrics,
        "baselines": baselines,
        "timing": {"training": progress["seconds"], "examples_per_second": float(np.median(rows)) if rows else None},
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "devices": [str(device) for device in program.layout.mesh.devices.flat],
        "layout": program.layout.mode,
        "state_sha256": digest,
    }  # fmt: skip
    return summary, view(program, state.variables)
