"""What a task is: how outputs are scored, what must be beaten, what a person wants to see. A new one is a class like this."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flax import linen as nn

from fdl.data.splits import Splits
from fdl.types import Array, Arrays, Batch, Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class View:
    """A trained model beside its data, as a report or a prediction needs them.

    Attributes:
        splits: the data, validation already cut from training.
        model: the Linen module.
        variables: {"params": ..., "batch_stats": ...} as evaluated (the best checkpoint's, averaged where EMA is on).
        outputs: raw rows (host arrays like those of `splits`, at least "inputs") -> host outputs [N, ...], any N.
        prepared: raw rows -> the batch as the model is given it in evaluation (host arrays).
        augmented: raw rows -> the same rows as a training step would be given them (host arrays).
        seed: the run's seed.
    """

    splits: Splits
    model: nn.Module
    variables: Mapping[str, Any]
    outputs: Callable[[Arrays], Any]
    prepared: Callable[[Arrays], Arrays]
    augmented: Callable[[Arrays], Arrays]
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One section of the report: a heading, a sentence, and a figure or a table or preformatted text."""

    title: str
    caption: str = ""
    figure: Figure | None = None
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    text: str = ""


@dataclasses.dataclass(frozen=True)
class MetricStyle:
    """How a metric is shown.

    Attributes:
        unit: what is written after the number ("nats", "100,000 dollars").
        percent: whether it is a share that is shown in per cent.
        better: which direction is better; "" where neither is.
    """

    unit: str = ""
    percent: bool = False
    better: Literal["max", "min", ""] = ""


def default_style(name: str) -> MetricStyle:
    """Return how a metric is shown whose task does not say: shares of one as per cent, anything else as it is."""
    return MetricStyle(percent=name in ("accuracy", "top5_accuracy", "precision", "recall"))


DrawPanel = Callable[[], "Panel | None"]
"""A function that draws one section, or returns None where there is nothing to show."""


class Task(Protocol):
    """The meaning of a model's outputs: a frozen dataclass whose fields are its settings.

    Attributes:
        monitor: the metric that chooses the best checkpoint, stops early and is held against `stop_at`.
        better: whether more or less of it is better.
    """

    @property
    def monitor(self) -> str: ...

    @property
    def better(self) -> Literal["max", "min"]: ...

    def score(self, outputs: Any, batch: Batch) -> dict[str, Array]:
        """Traced. Values by example, "loss" (to be minimised) among them, each shaped like the batch's mask ([B] or [B, T])."""
        ...

    def finish(self, means: Metrics) -> Metrics:
        """The metrics to report, from the masked means of `score` (a root of a mean square, a perplexity)."""
        ...

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """What a naive method reaches on the test split, under the names of `finish`'s metrics: {"majority class": {...}}."""
        ...

    def panels(self, view: View) -> Sequence[DrawPanel]:
        """The task's own part of the report, on the test split: a function for each section.

        The report calls them one after the other, each guarded by itself: one that raises becomes a note in its place.
        """
        ...

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Predictions for the user's own input (a file, a folder, a prompt), written under `out`; the files written.

        Raises:
            UserError: the input cannot be read; nothing is written then.
        """
        ...

    def sample(self, view: View) -> str:
        """A line or more to print and log every `sample_every` steps; empty where there is nothing to show."""
        ...
