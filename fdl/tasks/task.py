"""What a task is: what a model's outputs mean. A new one is a subclass in the user's own file; only `score` is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.tasks.losses import Score
from fdl.types import Array, Arrays, Batch, Metrics, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Better = Literal["max", "min"]
DrawPanel = Callable[[], "Panel | None"]
"""A function that draws one section, or returns None where there is nothing to show."""


def _decodes_nothing(rows: Arrays) -> Iterator[tuple[Arrays, Any]]:
    raise ValueError("this view was made without `over`")


@dataclasses.dataclass(frozen=True)
class View:
    """A trained model with its data, as a report, a prediction or a whole-split metric needs them.

    Attributes:
        splits: the data, validation already cut from training.
        model: the Linen module.
        variables: {"params": ..., "batch_stats": ...} as evaluated (the best checkpoint's, averaged where EMA is on).
        outputs: raw rows (host arrays like those of `splits`) -> the model's outputs on the host, [N, ...], any N.
        prepared: raw rows -> the batch as the model is given it in evaluation (host arrays).
        augmented: raw rows -> the same rows as a training step would be given them (host arrays).
        augmentations: (an op's name, raw rows -> the same rows changed by that op alone) for each op of training.
        seed: the run's seed.
        encode: a user's own rows, as the source would give them -> rows like those of `splits` (`Data.encode`).
        over: raw rows -> an iterator over (the rows of a batch, prepared; what `Task.decode` makes of them), both on the
            host, padding left out. Only one batch is held at a time.
    """

    splits: Splits
    model: nn.Module
    variables: Mapping[str, Any]
    outputs: Callable[[Arrays], Any]
    prepared: Callable[[Arrays], Arrays]
    augmented: Callable[[Arrays], Arrays]
    seed: int = 0
    over: Callable[[Arrays], Iterator[tuple[Arrays, Any]]] = _decodes_nothing
    encode: Callable[[Arrays], Arrays] = dict
    augmentations: Sequence[tuple[str, Callable[[Arrays], Arrays]]] = ()

    def decoded(self, rows: Arrays) -> Any:
        """Return what `Task.decode` makes of every row, the batches of `over` joined: arrays [N, ...], on the host."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *(made for _, made in self.over(rows)))


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

    def text(self, value: float) -> str:
        """Format a value for a person: four significant digits, its unit.

        >>> MetricStyle(percent=True).text(0.93471)
        '93.47%'
        >>> MetricStyle(unit="nats").text(1.52134)
        '1.521 nats'
        """
        if self.percent:
            return f"{100 * value:.4g}%"
        number = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"
        return f"{number} {self.unit}".rstrip()


@dataclasses.dataclass(frozen=True)
class Task:
    """The meaning of a model's outputs: a frozen dataclass whose fields are its settings.

    Attributes:
        monitor: the metric that chooses the best checkpoint, stops early and is compared with `stop_at`.
        better: whether more or less of it is better.
        headline: the metric by which a result is quoted, "" for the monitored one: an anomaly detector's checkpoint is chosen
            by its loss, without labels, and judged by its AUROC.
        styles: how metrics are shown, by name; others are plain numbers.
    """

    monitor: ClassVar[str] = "loss"
    better: ClassVar[Better] = "min"
    headline: ClassVar[str] = ""
    styles: ClassVar[Mapping[str, MetricStyle]] = {}

    # ---- traced: inside the compiled step --------------------------------------------------------------------------

    def init(self, model: nn.Module, key: Array, batch: Batch) -> Mapping[str, Any]:
        """Draw the model's variables for a prepared batch."""
        return model.init(key, batch["inputs"], train=False)

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model on a prepared batch.

        Override it (and `init`) where a model is given more than "inputs": the targets of a decoder, the step
        (`batch["step"]`, in training only).

        Args:
            settings: `train`, `rngs` and, in training, `mutable`, as `nn.Module.apply` takes them.
        """
        return model.apply(variables, batch["inputs"], **settings)

    def score(self, outputs: Any, batch: Batch) -> Mapping[str, Score]:
        """Score a batch: name -> values [B, ...], or (values, weights); "loss", which training minimises, among them.

        A plain value weighs as `batch["mask"]` does, where the data has one; see `losses.weighted_sums`. Training has
        `batch["step"]`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method score(outputs, batch)")

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Any:
        """Turn a prepared batch into what predictions and `measure` read; keep it small, as it is copied to the host.

        An argmax, a beam search, non-maximum suppression, an error score. Default: the model's outputs.
        """
        return self.apply(model, variables, batch, train=False, rngs=rngs)

    # ---- on the host -----------------------------------------------------------------------------------------------

    def finish(self, means: Metrics) -> Metrics:
        """Make the metrics to report from the weighted means of `score` (a root of a mean square, a perplexity)."""
        return dict(means)

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute metrics that need a whole split at once (BLEU, mAP, AUC, a threshold fitted on training rows).

        Called at every evaluation, in every process, where a task overrides it; `monitor` may name its metrics.
        """
        return {}

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse data that do not fit the model, before training.

        Args:
            outputs: shapes and dtypes of the model's outputs for one row.

        Raises:
            UserError: they do not fit.
        """

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score simple methods on the test split, under the names of `finish`'s metrics."""
        return {}

    def data_panels(self, view: View) -> Sequence[DrawPanel]:
        """List sections about the data alone, for a look before training (--mode=show_data).

        `view` has no variables: its model cannot be called.
        """
        return []

    def panels(self, view: View) -> Sequence[DrawPanel]:
        """List the task's own sections of the report, on the test split: a function for each.

        The report calls them one after the other; one that raises is replaced by a note.
        """
        return []

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Predict for the user's own input (a file, a folder, a prompt); return the files written under `out`.

        Raises:
            UserError: the input cannot be read; nothing is written then.
        """
        raise UserError(f"--mode=predict: {type(self).__name__} has no predictions; write its method predict")

    def sample(self, view: View) -> str:
        """Return a line or more to print and log every `sample_every` steps; empty where there is nothing to show."""
        return ""

    def quoted_metric(self) -> str:
        """Name the metric by which a result is quoted."""
        return self.headline or self.monitor

    def metric_style(self, name: str) -> MetricStyle:
        """Look up how a metric is shown, by its name with or without "train/", "eval/" or "test/"."""
        short = name.rpartition("/")[2]
        return self.styles.get(short, MetricStyle(better=self.better if short == self.monitor else ""))


def measures(task: Task) -> bool:
    """Return whether the task has metrics of whole splits."""
    return type(task).measure is not Task.measure


def output_width(outputs: Any) -> int | None:
    """Return the size of the last axis where the outputs are one array, else None."""
    return outputs.shape[-1] if isinstance(outputs, jax.ShapeDtypeStruct) and outputs.ndim > 1 else None
