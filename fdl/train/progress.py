"""The host's side of a run: what is known of it, step by step, as plain values that are saved with every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fdl.rundir.logs import Row
from fdl.train.program import Program
from fdl.train.step import places
from fdl.types import Metrics, RunError, is_due

Progress = dict[str, Any]
"""JSON: see `begin`."""


class BadStep(RunError):
    """A step that must not count: its number, what was wrong with it, and its loss."""

    def __init__(self, step: int, place: str, loss: float, fault: str = "is not finite", advice: str = "") -> None:
        super().__init__(
            f"{place} of step {step} {fault}; nothing of it was saved; {advice}--mode=replay shows the step"
        )
        self.step, self.place, self.loss, self.fault = step, place, loss, fault


def begin() -> Progress:
    """The progress of a run that has not started.

    settled: the last step whose evaluation and row are done; row: what is already known of an unfinished row;
    best_step, best, since_best: the best evaluation so far and how many came after it; stopped, limits: why the run
    ended early and the limits that made it; sums, count: training metrics since the last row; bad: the steps that do not
    count, skipped or to be left out; seconds: time in the loop over all starts.
    """
    return {
        "settled": 0, "row": {}, "best_step": None, "best": None, "since_best": 0, "stopped": "", "limits": [],
        "sums": {}, "count": 0, "bad": [], "seconds": 0.0,
    }  # fmt: skip


def bad_step(program: Program, at: int, values: Mapping[str, float]) -> BadStep | None:
    """What the metrics of step `at` say against it, None where it is good."""
    if not values.get("first_bad"):
        return None
    place, loss, limit = (
        places(program.like.params)[int(values["first_bad"]) - 1],
        values["loss"],
        program.experiment.loss_limit,
    )
    over = place == "the loss" and math.isfinite(loss)
    fault = f"is {loss:.4g}, over loss_limit={limit:g}" if over and limit is not None else "is not finite"
    rate = values["learning_rate"]
    advice = f"try a lower optimizer.learning_rate (now {rate:.3g}) or --set optimizer.clip_norm=1; "
    return BadStep(at, place, loss, fault, advice)


def arrive(program: Program, at: int, values: Mapping[str, Any], progress: Progress) -> tuple[Progress, Row]:
    """Take in the metrics of step `at`: the new progress, and the row to write where one is due.

    Args:
        values: a number each, or an array of those of several steps of which `at` is the last ({}: it was left out).
    """
    if values:
        # One by one, as np.cumsum adds: how steps are gathered into calls changes no bit.
        values = {name: np.append(progress["sums"].get(name, 0.0), value) for name, value in values.items()}
        count = len(values.pop("first_bad")) - 1
        sums = {name: float(np.cumsum(value)[-1]) for name, value in values.items()}
        progress = progress | {"sums": sums, "count": progress["count"] + count}
    if not progress["count"] or not is_due(at, program.period("log")):
        return progress, {}
    means = {name: total / progress["count"] for name, total in progress["sums"].items()}
    finished = program.experiment.task.finish(means)
    row = place_of(program, at) | {f"train/{name}": value for name, value in finished.items()}
    bad = sum(step <= at for step in progress["bad"])
    return progress | {"sums": {}, "count": 0}, row | ({"train/bad_steps": bad} if bad else {})


def place_of(program: Program, at: int) -> Row:
    """The beginning of a row: the step, and the same in epochs."""
    return {"step": at, "epoch": at * program.experiment.batch_size / program.stream.num_examples}


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
