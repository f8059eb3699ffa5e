"""The loop: restore or begin, train, evaluate, save; and what is done when a step goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from fdl import files
from fdl.checkpoint import manifest, saving
from fdl.data import pipeline
from fdl.distributed import processes
from fdl.rundir import logs
from fdl.train import resident, stopping
from fdl.train.program import Program, evaluate, view
from fdl.train.progress import BadStep, Progress, arrive, bad_step, begin, judge, limits, place_of
from fdl.train.step import State
from fdl.types import RunError, is_due

MOST_ROLLBACKS = 3
MOST_SKIPPED_IN_A_ROW = 10


@dataclasses.dataclass(frozen=True)
class Calls:
    """What a run needs of its surroundings.

    Attributes:
        say: takes a line for the user.
        asked: the signal that asks the run to stop, else 0; the same in every process.
        first_step: called when the first step of this start has finished.
        about_to: called with the first and the last step's number before a call that makes these steps.
        alive: called whenever a step, an evaluation batch or a save has finished.
    """

    say: Callable[[str], None] = lambda line: None
    asked: Callable[[], int] = lambda: 0
    first_step: Callable[[], None] = lambda: None
    about_to: Callable[[int, int], None] = lambda first, last: None
    alive: Callable[[], None] = lambda: None


def restore(program: Program, root: Path) -> tuple[State, Progress]:
    """The newest good checkpoint under `root`, or the start."""

    def newest() -> int | None:
        manifest.clean(root)
        saved = manifest.latest(root)
        return saved.step if saved else None

    step = processes.from_first(newest)
    if step is None:
        return program.start(), begin()
    saved = manifest.read(root, step)
    return saving.restore(saved, program.like), {**begin(), **saved.progress}


def restore_best(program: Program, root: Path) -> tuple[State, int]:
    """The state that the validation split chose (the last one where there is no validation), and its step.

    Raises:
        RunError: there is no checkpoint, or none verifies.
    """

    def best() -> int:
        saved = manifest.latest(root)
        if saved is None:
            raise RunError(f"there is no checkpoint in {root}; train first")
        best = saved.progress["best_step"]
        if best in (None, saved.step):
            return saved.step
        if manifest.at_step(root, best) is None:
            raise RunError(
                f"the best checkpoint, step {best}, is missing or damaged in {root}; train again in a new --workdir"
            )
        return int(best)

    step = processes.from_first(best)
    return saving.restore(manifest.read(root, step), program.like), step


def train(program: Program, workdir: Path, calls: Calls) -> Progress:
    """Run the steps that are left, around bad ones as `on_bad_step` says; the progress at the end.

    Raises:
        Interrupted: told to stop, and saved.
        RunError: a step was not finite (BadStep) and the policy or its limit ends the run, a checkpoint cannot be saved,
            or another process has died.
    """
    left_out: list[int] = []
    while True:
        try:
            return _run(program, workdir, calls, left_out)
        except BadStep as bad:
            record(program, workdir, bad, left_out)
            if program.experiment.on_bad_step != "rollback" or len(left_out) == MOST_ROLLBACKS:
                raise
            calls.say(f"{bad.place} of step {bad.step} {bad.fault}: back to the last checkpoint, this step left out")
            left_out.append(bad.step)


def record(program: Program, workdir: Path, bad: BadStep, excluded: Sequence[int] = ()) -> None:
    """Write bad_step_<n>.json, what --mode=replay reads: the step, what was not finite, and which examples it saw."""
    if not processes.is_first():
        return
    everyones = dataclasses.replace(program.stream, shard=0, num_shards=1)
    rows = everyones.rows(bad.step - 1).tolist()
    policy = program.experiment.on_bad_step
    found = {
        "step": bad.step,
        "place": bad.place,
        "fault": bad.fault,
        "loss": str(bad.loss),
        "policy": policy,
        "rows": rows,
        "excluded": sorted(number for number in excluded if number < bad.step),
    }
    files.write_json(workdir / f"bad_step_{bad.step}.json", found)


@jax.jit
def _finite(state: State) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


@jax.jit
def _leave_out(state: State) -> State:
    return dataclasses.replace(state, step=state.step + 1)


def _run(program: Program, workdir: Path, calls: Calls, left_out: list[int]) -> Progress:
    """From the newest checkpoint to the end.

    A step's metrics are read after the next one is dispatched, so the host never keeps the device waiting; only an
    evaluation, a save and a sample wait.
    """
    experiment, total, root = program.experiment, program.total_steps, workdir / "checkpoints"
    state, progress = restore(program, root)
    progress = progress | {"bad": sorted({*progress["bad"], *left_out})}
    at = start = int(state.step)
    if at:
        calls.say(f"resumed at step {at} of {total}")
    if progress["stopped"] and progress["limits"] != limits(program):
        progress = progress | {"stopped": ""}  # the user moved what had stopped it
    # A run told to stop in the evaluation of its last step has that evaluation still to make.
    if at > total or (at == total and progress["settled"] == at) or progress["stopped"]:
        return progress
    validation = program.data.splits.validation
    period = {name: program.period(name) for name in ("eval", "save", "sample")}
    periods = [*period.values(), program.period("log")]
    fed = program.on_device is None
    batches = (
        pipeline.feed(experiment.data.feed, program.data.splits.train, program.stream, at, total) if fed else iter(())
    )
    waiting: tuple[int, int, Any] | None = None
    clock, timed_from = time.monotonic(), at
    logged = at if progress["settled"] == at else at - 1  # an evaluation that was broken off writes its row again
    workdir.mkdir(parents=True, exist_ok=True)

    with (
        logs.writer(workdir, logged) if processes.is_first() else contextlib.nullcontext(lambda row: None) as write,
        logs.progress(experiment.name, start, total) as tell,
        saving.saver(root) as store,
    ):

        def save() -> None:
            if not _finite(state):
                raise BadStep(at, "the state after the update", math.nan)
            store(at, state, progress)
            calls.alive()

        def emit(row: logs.Row) -> None:
            nonlocal clock, timed_from
            if not row:
                return
            if "train/loss" in row and row["step"] > timed_from:
                now = time.monotonic()
                row["examples_per_second"] = (row["step"] - timed_from) * experiment.batch_size / (now - clock)
                progress["seconds"] += now - clock
                clock, timed_from = now, row["step"]
            write(row)
            tell(row["step"], row)

        def take_in() -> logs.Row:
            nonlocal waiting, progress
            if not waiting:
                return {}
            (first, count, metrics), waiting = waiting, None
            found = {name: value.reshape(-1)[:count] for name, value in jax.device_get(metrics).items()}
            calls.alive()
            row: logs.Row = {}
            if found and found["first_bad"].any():
                for number in range(count):  # only the last of them can have a row
                    row = of_step(first + number, {name: float(values[number]) for name, values in found.items()})
            else:
                progress, row = arrive(program, first + count - 1, found, progress)
            return row

        def of_step(number: int, values: dict[str, float]) -> logs.Row:
            nonlocal progress
            bad = bad_step(program, number, values)
            if bad:
                progress = progress | {"bad": sorted({*progress["bad"], number})}
                many = {number - i for i in range(MOST_SKIPPED_IN_A_ROW + 1)} <= set(progress["bad"])
                if experiment.on_bad_step != "skip" or many:
                    raise bad
                record(program, workdir, bad, progress["bad"])
                calls.say(f"{bad.place} of step {number} {bad.fault}: skipped")
                values = {}
            progress, row = arrive(program, number, values, progress)
            return row

        def between() -> None:
            calls.alive()
            stopping.leave_if(calls.asked)

        while True:
            last = at == total
            due = {name: is_due(at, steps) or (last and steps > 0) for name, steps in period.items()}
            stop = calls.asked()
            if stop or (any(due.values()) and progress["settled"] != at):
                row: logs.Row = progress["row"] | take_in()
                if "train/loss" in row:
                    progress = progress | {"row": row}
                paused = time.monotonic()
                improved = False
                try:
                    if due["eval"] and validation is not None and progress["settled"] != at:
                        metrics = evaluate(program, state.variables, validation, between)
                        row = place_of(program, at) | row | {f"eval/{name}": value for name, value in metrics.items()}
                        progress = judge(program, at, metrics, progress)
                        improved = progress["best_step"] == at
                    if due["sample"] and (text := experiment.task.sample(view(program, state.variables))):
                        calls.say(text)
                        row = place_of(program, at) | row | {"sample": text}
                except stopping.Interrupted as interrupted:
                    save()  # not settled: the evaluation is made again after the resume
                    stop = interrupted.signum
                    break
                clock += time.monotonic() - paused
                emit(row)
                progress = progress | {"settled": at, "row": {}}
                if improved or due["save"] or last or progress["stopped"] or stop:
                    save()
                if stop:
                    break
            if last or progress["stopped"]:
                break
            count = 1 if fed or at == start else resident.until_due(at, total, periods, progress["bad"])
            calls.about_to(at + 1, at + count)
            if at + 1 in progress["bad"]:
                state, count, now = _leave_out(state), 1, cast(dict[str, Any], {})
                next(batches, None)
            else:
                state, now = program.advance(state, at, count, batches)
            if waiting:
                emit(take_in())
            elif at == start:
                jax.block_until_ready(state)
                calls.first_step()
                calls.alive()
                clock, timed_from = time.monotonic(), at + 1
            waiting = at + 1, count, now
            at += count
            tell(at, {})
    if stop:
        raise stopping.Interrupted(stop)  # out here, where the last save has been waited for
    if progress["stopped"]:
        calls.say(progress["stopped"])
    return progress
