"""The log of a run in training: rows as they become ready, the progress bar, and the rate in between."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fdl.distributed import processes
from fdl.rundir import logs
from fdl.rundir.rows import Row
from fdl.train.program import Program
from fdl.train.progress import Progress
from fdl.train.schedule import Schedule


@dataclasses.dataclass(frozen=True)
class Clock:
    """The start of the rate's measurement: a step's number, and the time in seconds when it was finished."""

    step: int
    since: float

    def paused(self, began: float) -> Clock:
        """Leave out the time since `began`."""
        return dataclasses.replace(self, since=self.since + time.monotonic() - began)


def row_header(program: Program, step: int) -> Row:
    """Begin a row: the step, and the same in epochs."""
    return {"step": step, "epoch": program.epochs(step)}


Log = Callable[[Progress, Clock, int], tuple[Progress, Clock]]


@contextlib.contextmanager
def open_log(program: Program, workdir: Path, schedule: Schedule, progress: Progress) -> Iterator[Log]:
    """Open the run's log: `log(progress, clock, step)` writes the row that is ready, if any, and moves the bar to `step`."""
    batch_size, start = program.experiment.batch_size, schedule.start
    # Rows after this step are removed, because they are made again; so is the row of an interrupted evaluation.
    upto = start if progress.evaluated_at == start else start - 1
    workdir.mkdir(parents=True, exist_ok=True)
    writer = logs.writer(workdir, upto) if processes.is_first() else contextlib.nullcontext(lambda row: None)
    with writer as write, logs.progress(program.experiment.name, start, schedule.total) as show:

        def log(progress: Progress, clock: Clock, step: int) -> tuple[Progress, Clock]:
            row = progress.row
            if "train/loss" in row and row["step"] > clock.step:
                now = time.monotonic()
                row = row | {"examples_per_second": (row["step"] - clock.step) * batch_size / (now - clock.since)}
                progress = dataclasses.replace(progress, seconds=progress.seconds + now - clock.since)
                clock = Clock(row["step"], now)
            if row:
                write(row)
                show(row["step"], row)
            show(step, {})
            return dataclasses.replace(progress, row={}), clock

        yield log
