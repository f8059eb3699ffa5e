"""What the host knows of a run besides its state: one frozen value, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fdl.experiment import Experiment
from fdl.rundir.rows import Row, as_numbers
from fdl.tasks.task import Task
from fdl.train.step import Metrics
from fdl.types import Metrics as MetricValues

SumAndWeight = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a resume needs to know besides the state.

    Attributes:
        evaluated_at: the last step whose evaluation and row are done.
        row: what is already known of an unfinished row.
        best_step, best, since_best: the best evaluation so far, and how many came after it.
        stopped: why the run ended early; "" where it did not.
        stop_criteria: [stop_at, patience] that ended it: a run goes on when the user changes them.
        sums: training scores since the last row: name -> (sum, weight).
        bad: the steps that do not count, skipped or left out.
        seconds: time in the loop, over all starts.
    """

    evaluated_at: int = 0
    row: Row = dataclasses.field(default_factory=dict)
    best_step: int | None = None
    best: float | None = None
    since_best: int = 0
    stopped: str = ""
    stop_criteria: tuple[Any, ...] = ()
    sums: Mapping[str, SumAndWeight] = dataclasses.field(default_factory=dict)
    bad: tuple[int, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `to_json` wrote; from another version, only the names that are known."""
        known = {field.name for field in dataclasses.fields(cls)}
        found = {name: value for name, value in values.items() if name in known}
        found["row"] = as_numbers(found.get("row", {}))
        found["sums"] = {name: (pair[0], pair[1]) for name, pair in found.get("sums", {}).items()}
        found |= {name: tuple(found.get(name, ())) for name in ("bad", "stop_criteria")}
        return cls(**found)

    def with_bad(self, steps: Iterable[int]) -> Progress:
        """Add steps that do not count."""
        return dataclasses.replace(self, bad=tuple(sorted({*self.bad, *steps})))

    def with_row(self, row: Row) -> Progress:
        """Add to the unfinished row; start no row where there is nothing to add."""
        return dataclasses.replace(self, row=self.row | row) if row else self

    def resumed(self, experiment: Experiment, excluded: Iterable[int]) -> Progress:
        """Prepare to resume: add the steps to leave out, and clear `stopped` if the user changed what had stopped it."""
        moved = self.stopped and self.stop_criteria != stop_criteria(experiment)
        return dataclasses.replace(self.with_bad(excluded), stopped="" if moved else self.stopped)

    def bad_in_a_row(self, step: int) -> int:
        """Count the bad steps that end with `step`."""
        count = 0
        while step - count in self.bad:
            count += 1
        return count


def stop_criteria(experiment: Experiment) -> tuple[Any, ...]:
    """List what can end a run before its last step."""
    return experiment.stop_at, experiment.patience


def accumulate(progress: Progress, metrics: Metrics | None) -> Progress:
    """Add the scores of one step, or of several (each leaf [steps]), to the sums of the unfinished row.

    They are added one step after the other, as np.cumsum does, so how steps are grouped into calls changes no bit.
    None: a step left out, nothing is added.
    """
    if metrics is None:
        return progress
    sums = {
        name: (_added(old[0], value), _added(old[1], weight))
        for name, (value, weight) in metrics.sums.items()
        for old in [progress.sums.get(name, (0.0, 0.0))]
    }
    return dataclasses.replace(progress, sums=sums)


def _added(old: float, values: object) -> float:
    return float(np.cumsum(np.append(old, np.asarray(values, np.float64)))[-1])


def finish_row(progress: Progress, task: Task, header: Row) -> Progress:
    """Turn the sums into the training part of a row; add nothing where no step was counted."""
    if not progress.sums:
        return progress
    means = {name: total / weight if weight else 0.0 for name, (total, weight) in progress.sums.items()}
    row = header | {f"train/{name}": value for name, value in task.finish(means).items()}
    bad = sum(step <= header["step"] for step in progress.bad)
    row |= {"train/bad_steps": bad} if bad else {}
    return dataclasses.replace(progress.with_row(row), sums={})


def update_best(progress: Progress, experiment: Experiment, step: int, metrics: MetricValues) -> Progress:
    """Compare an evaluation with the best so far, the patience and the target. A NaN is never the best.

    Among equals the later one is the best (a small validation split has many, and the later state has trained longer),
    but an equal does not reset the patience.
    """
    task = experiment.task
    value, best = metrics[task.monitor], progress.best
    sign = 1 if task.better == "max" else -1
    if math.isfinite(value) and (best is None or sign * value >= sign * best):
        progress = dataclasses.replace(progress, best_step=step, best=value)
    improved = progress.best is not None and progress.best != best
    progress = dataclasses.replace(progress, since_best=0 if improved else progress.since_best + 1)
    why = ""
    if experiment.stop_at is not None and sign * value >= sign * experiment.stop_at:
        shown = task.metric_style(task.monitor).text(experiment.stop_at)
        why = f"Reached {shown} {task.monitor} so cancelling training!"
    elif experiment.patience is not None and progress.since_best >= experiment.patience:
        why = f"No better {task.monitor} in {experiment.patience} evaluations"
        why += f", the best at step {progress.best_step}: stopped early."
    return dataclasses.replace(progress, stopped=why, stop_criteria=stop_criteria(experiment)) if why else progress
