"""Checks before a run begins: settings that would not do what they seem to say are refused or warned of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from fdl.checkpoint import manifest
from fdl.data.splits import Splits
from fdl.experiment import Experiment
from fdl.report.describe import Layer
from fdl.train.program import Program
from fdl.types import UserError

_SAME_RATE = 0.01
"""A resume that changes a learning rate by less than this share prints no warning."""


def warn_of_early_stopping(experiment: Experiment, splits: Splits) -> None:
    """Warn that `patience` and `stop_at` do nothing where there is no validation split."""
    names = [name for name in ("patience", "stop_at") if getattr(experiment, name) is not None]
    if names and splits.validation is None:
        logging.warning(
            "%s would look at a validation split, and %s has none: the run will not stop early; cut one, such as "
            "--set data.validation=10%%", " and ".join(names), splits.name,
        )  # fmt: skip


def warn_of_batch_norm(experiment: Experiment, layers: Sequence[Layer]) -> None:
    """Warn that a batch of one trains nothing through a BatchNorm over single numbers: each minus its mean is 0."""
    flat = [layer.name for layer in layers if layer.kind == "BatchNorm" and len(layer.shape) == 1]
    if flat and experiment.batch_size == 1:
        logging.warning(
            "batch_size=1: BatchNorm (%s) subtracts the mean of a batch, and of one example nothing is left: nothing can be "
            "learnt; give a larger batch_size, or leave BatchNorm out", flat[0],
        )  # fmt: skip


def check_length(program: Program, workdir: Path, before: Mapping[str, Any]) -> None:
    """Refuse to end a run before the step it has reached; say what another length does to its learning rate.

    Raises:
        UserError: more steps were made than the run now is to have.
    """
    folders = [folder for folder in manifest.step_folders(workdir / "checkpoints") if manifest.is_sealed(folder)]
    made, total = int(folders[-1].name) if folders else 0, program.total_steps
    if made > total:
        raise UserError(
            f"--workdir={workdir} has made {made} steps, more than the {total} of steps={program.experiment.steps}; give "
            f"--set steps={made} or more, or another --workdir"
        )
    planned, rate = before.get("total_steps"), program.optimizer[1]
    if not made or made == total or planned in (None, total) or rate is None:
        return
    old_rate = program.experiment.optimizer.build(planned)[1]
    if old_rate is None:
        return
    old, new = float(old_rate(made)), float(rate(made))
    if abs(new - old) > _SAME_RATE * abs(old):
        logging.warning(
            "the learning rate was laid out over %d steps and is now read at step %d of %d: it goes from %.3g to %.3g",
            planned, made, total, old, new,
        )  # fmt: skip
