"""Steps that were not finite: how they are detected, what follows, and the record that --mode=replay reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fdl import files
from fdl.distributed import processes
from fdl.train.program import Program
from fdl.train.progress import Progress, accumulate
from fdl.train.step import Metrics
from fdl.types import RunError

MAX_ROLLBACKS = 3
MAX_SKIPPED_IN_A_ROW = 10


class BadStep(RunError):
    """A step that must not count.

    Attributes:
        step: its number.
        what: what was wrong ("the loss", "an input", "the gradient of conv1/kernel").
        fault: how it was wrong.
        loss: the batch's.
        excluded: the steps before it that did not count.
    """

    def __init__(
        self,
        step: int,
        what: str,
        loss: float = math.nan,
        fault: str = "is not finite",
        advice: str = "",
        excluded: tuple[int, ...] = (),
    ) -> None:
        super().__init__(
            f"{what} of step {step} {fault}; nothing of it was saved; {advice}--mode=replay shows the step"
        )
        self.step, self.what, self.loss, self.fault, self.excluded = step, what, loss, fault, excluded

    @property
    def finding(self) -> str:
        """Describe what was wrong, in a few words."""
        return f"{self.what} of step {self.step} {self.fault}"


def read_step(
    program: Program, workdir: Path, step: int, metrics: Metrics, progress: Progress, say: Callable[[str], None]
) -> Progress:
    """Add the metrics of one step (scalars), good or bad, to the progress.

    Raises:
        BadStep: it is bad, and the policy is not to skip it, or too many in a row were.
    """
    bad = find_bad_step(program, step, metrics, progress.bad)
    if bad is None:
        return accumulate(progress, metrics)
    progress = progress.with_bad([step])
    if program.experiment.on_bad_step != "skip" or progress.bad_in_a_row(step) > MAX_SKIPPED_IN_A_ROW:
        raise bad
    record(program, workdir, bad, "skip")
    say(f"{bad.finding}: skipped")
    return progress


def find_bad_step(program: Program, step: int, metrics: Metrics, excluded: tuple[int, ...] = ()) -> BadStep | None:
    """Find what was wrong with a step by its metrics (scalars); None where it is good."""
    if not metrics.first_bad:
        return None
    what, limit = program.check_names[int(metrics.first_bad) - 1], program.experiment.loss_limit
    loss, rate = (_mean(metrics.sums.get(name)) for name in ("loss", "learning_rate"))
    over = what == "the loss" and math.isfinite(loss) and limit is not None
    fault = f"is {loss:.4g}, over loss_limit={limit:g}" if over else "is not finite"
    now = f" (now {rate:.3g})" if math.isfinite(rate) else ""
    advice = f"try a lower optimizer.learning_rate{now} or --set optimizer.clip_norm=1; "
    if what == "an input":
        advice = "its data hold a NaN or an infinity; "
    return BadStep(step, what, loss, fault, advice, excluded)


def _mean(pair: tuple[Any, Any] | None) -> float:
    return float(pair[0]) / float(pair[1]) if pair and pair[1] else math.nan


def record(program: Program, workdir: Path, bad: BadStep, followed_by: Literal["stop", "skip", "rollback"]) -> None:
    """Write bad_step_<n>.json: the step, what was not finite, which examples it saw, and what followed."""
    if not processes.is_first():
        return
    everyones = dataclasses.replace(program.stream, shard=0, num_shards=1)
    found = {
        "step": bad.step, "what": bad.what, "fault": bad.fault, "loss": str(bad.loss), "followed_by": followed_by,
        "excluded": list(bad.excluded), "rows": everyones.rows(bad.step - 1).tolist(),
    }  # fmt: skip
    files.write_json(workdir / f"bad_step_{bad.step}.json", found)


def rolled_back(workdir: Path) -> list[int]:
    """List the steps that this run has rolled back and leaves out, over all its starts."""
    records = (json.loads(path.read_text()) for path in sorted(workdir.glob("bad_step_*.json")))
    return sorted(record["step"] for record in records if record.get("followed_by") == "rollback")
