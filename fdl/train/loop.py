"""The training loop: restore or begin, train, evaluate, save.

One turn of `run`: (1) finish what is due at this step, (2) dispatch the next call, (3) read the metrics of the call before
it. Only (1) waits for the device. Everything known of the run is in two values, `state` and `progress`; the order of the
operations lets a run that is killed at any instant resume to the same bits.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fdl.checkpoint import saving
from fdl.distributed import processes
from fdl.rundir.rows import Row
from fdl.train import bad_steps, stopping
from fdl.train.bad_steps import BadStep
from fdl.train.evaluation import evaluate, view
from fdl.train.program import Program
from fdl.train.progress import Progress, accumulate, finish_row, update_best
from fdl.train.restore import restore
from fdl.train.row_log import Clock, Log, open_log, row_header
from fdl.train.schedule import Call, Schedule
from fdl.train.step import Metrics, State
from fdl.train.updates import apply_updates, update_steps
from fdl.types import is_due


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a run needs of its surroundings.

    Attributes:
        say: takes a line for the user.
        stop_signal: the signal that asks the run to stop, else 0; the same in every process.
        first_step: called when the first step of this start has finished.
        before_call: called with the first and the last step's number before a call that makes these steps.
        heartbeat: called whenever a step, an evaluation batch or a save has finished.
    """

    say: Callable[[str], None] = lambda line: None
    stop_signal: Callable[[], int] = lambda: 0
    first_step: Callable[[], None] = lambda: None
    before_call: Callable[[int, int], None] = lambda first, last: None
    heartbeat: Callable[[], None] = lambda: None

    def between_batches(self) -> None:
        """Leave an evaluation early if the run was asked to stop."""
        self.heartbeat()
        stopping.leave_if(self.stop_signal)


Pending = tuple[Call, Metrics | None] | None
"""A call whose metrics have not been read yet."""


def train(program: Program, workdir: Path, hooks: Hooks = Hooks()) -> Progress:
    """Train the remaining steps, handling bad ones as `on_bad_step` says; return the progress at the end.

    Raises:
        Interrupted: asked to stop, and saved.
        RunError: a step was not finite (BadStep) and the policy or its limit ends the run, a checkpoint cannot be saved,
            or another process has died.
    """
    while True:
        # Read the rolled back steps from the run directory, so that a start after a kill leaves out the same ones.
        excluded = processes.from_first(lambda: bad_steps.rolled_back(workdir))
        try:
            return run(program, workdir, hooks, excluded)
        except BadStep as bad:
            again = program.experiment.on_bad_step == "rollback" and len(excluded) < bad_steps.MAX_ROLLBACKS
            bad_steps.record(program, workdir, bad, "rollback" if again else "stop")
            if not again:
                raise
            hooks.say(f"{bad.finding}: back to the last checkpoint, this step left out")


def run(program: Program, workdir: Path, hooks: Hooks, excluded: list[int]) -> Progress:
    """Train from the newest checkpoint to the last step, an early stop, a signal or a bad step.

    Args:
        excluded: steps to leave out.

    Raises:
        Interrupted: asked to stop; everything is saved.
        BadStep: something was not finite, and the policy is not to skip it, or too many in a row were.
    """
    state, progress = restore(program, workdir / "checkpoints")
    progress = progress.resumed(program.experiment, excluded)
    schedule = make_schedule(program, start=int(state.step))
    if schedule.start:
        hooks.say(f"resumed at step {schedule.start} of {schedule.total}")
    if schedule.is_over(progress.evaluated_at, progress.stopped):
        return progress
    with open_log(program, workdir, schedule, progress) as log, saving.saver(workdir / "checkpoints") as save:
        batches = program.compiled.batches(schedule.start)
        step = schedule.start  # the host's own count: int(state.step) would wait for the device
        pending: Pending = None
        clock = Clock(step, time.monotonic())
        while True:
            # 1. What is due at this step. The last call's metrics are read first, so that a bad step is never saved.
            due, signum = schedule.due(step, progress.evaluated_at), hooks.stop_signal()
            if due or signum:
                progress, pending = read_metrics(program, workdir, pending, progress, hooks), None
                progress, clock, signum = finish_step(
                    program, state, step, due, signum, progress, clock, hooks, log, save
                )
            if signum or progress.stopped or step == schedule.total:
                break  # with nothing pending: the last call's metrics were read above
            # 2. The next call: one step, or every step up to the next thing that is due.
            call = schedule.next_call(step, progress.bad)
            hooks.before_call(call.first, call.last)
            # After the save: a step's checkpoint holds the state before its update, so a resume makes the update again.
            state = apply_updates(program, state, step, hooks.heartbeat)
            # Returns before the devices have finished; the old state is donated, so nothing may read it from here on.
            state, metrics = program.compiled.run_steps(state, call, batches)
            # 3. The metrics of the call before it, while this one computes.
            progress = read_metrics(program, workdir, pending, progress, hooks)
            progress, clock = log(progress, clock, call.last)
            if step == schedule.start:
                clock = _wait_for_first_step(state, call, hooks)
            step, pending = call.last, (call, metrics)
    if signum:
        raise stopping.Interrupted(signum)  # outside the `with`, which has waited for the last save
    if progress.stopped:
        hooks.say(progress.stopped)
    return progress


def make_schedule(program: Program, start: int) -> Schedule:
    """Build the schedule of a start that begins after step `start`."""
    every = {name: program.steps_between(name) for name in ("log", "eval", "save", "sample")}
    if program.data.splits.validation is None:
        every["eval"] = 0
    fed = program.compiled.resident_rows is None
    return Schedule(start, program.total_steps, every, update_steps(program), one_by_one=fed)


def finish_step(
    program: Program, state: State, step: int, due: frozenset[str], signum: int, progress: Progress, clock: Clock,
    hooks: Hooks, log: Log, save: saving.Save,
) -> tuple[Progress, Clock, int]:  # fmt: skip
    """Do what is due at a step: evaluate, log, save, in this order.

    A kill before the save resumes from an older checkpoint, which cuts the row off and makes it again; a kill after it
    finds the row written. No row is lost or doubled.

    Args:
        signum: the signal that asks the run to stop, else 0; the state is saved for it too.

    Returns:
        The progress, the clock without the time of the evaluation, and the signal, which may have come in the evaluation.
    """
    began = time.monotonic()
    progress, interrupted = evaluate_step(program, state, step, due, progress, hooks)
    clock = clock.paused(began)  # evaluation time is not part of the training rate
    if not interrupted:
        progress, clock = log(progress, clock, step)
        progress = dataclasses.replace(progress, evaluated_at=step)
    signum = signum or interrupted
    if signum or "save" in due or progress.best_step == step or progress.stopped:
        save(step, _require_finite(state, step, progress), progress.to_json())
        hooks.heartbeat()
    return progress, clock, signum


def evaluate_step(
    program: Program, state: State, step: int, due: frozenset[str], progress: Progress, hooks: Hooks
) -> tuple[Progress, int]:
    """Evaluate and sample where due; what they find joins the step's row.

    Returns:
        The progress, and the signal that interrupted the evaluation (else 0). After a signal the step stays unfinished
        and the training part of its row is kept: a resume evaluates again and completes the same row.
    """
    after, found = progress, Row()
    validation = program.data.splits.validation
    try:
        if "eval" in due and validation is not None:
            metrics = evaluate(program, state.variables, validation, hooks.between_batches)
            found |= {f"eval/{name}": value for name, value in metrics.items()}
            after = update_best(progress, program.experiment, step, metrics)
        if "sample" in due and (text := program.experiment.task.sample(view(program, state.variables))):
            hooks.say(text)
            found |= {"sample": text}
    except stopping.Interrupted as interrupted:
        return progress, interrupted.signum  # as it came: half an evaluation must leave no trace
    return (after.with_row(row_header(program, step) | found) if found else after), 0


def read_metrics(program: Program, workdir: Path, pending: Pending, progress: Progress, hooks: Hooks) -> Progress:
    """Read a call's metrics into the sums, and into a row where one is due. A bad step is skipped or raised.

    Here the host learns of a fault, one call late; nothing of it has been saved by then.
    """
    if pending is None:
        return progress
    call, found = pending
    # The same shape for both kinds of call: [steps]. A loop's arrays are longer than its steps; the rest is cut off.
    metrics = jax.tree.map(lambda leaf: np.reshape(leaf, -1)[: call.count], jax.device_get(found))
    hooks.heartbeat()
    if metrics is None or not metrics.first_bad.any():
        progress = accumulate(progress, metrics)
    else:  # one by one, because some of them count and some do not
        for i in range(call.count):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
            progress = bad_steps.read_step(program, workdir, call.first + i, one, progress, hooks.say)
    if is_due(call.last, program.steps_between("log")):
        progress = finish_row(progress, program.experiment.task, row_header(program, call.last))
    return progress


def _wait_for_first_step(state: State, call: Call, hooks: Hooks) -> Clock:
    """Start the clock at the end of the first call: compiling and warming up are not part of the rate."""
    jax.block_until_ready(state)
    hooks.first_step()
    hooks.heartbeat()
    return Clock(call.last, time.monotonic())


@jax.jit
def _all_finite(state: State) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _require_finite(state: State, step: int, progress: Progress) -> State:
    """Return the state if it may be saved, else raise BadStep."""
    if not _all_finite(state):
        raise BadStep(step, "the state after the update", excluded=progress.bad)
    return state
