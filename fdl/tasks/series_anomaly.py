"""Anomalies in series: where the error of a forecast or a reconstruction is unlike all errors before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.formats import nab
from fdl.data.splits import Request, Splits
from fdl.files import write_all
from fdl.tasks.nab_score import nab_score
from fdl.tasks.panels import figures
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View
from fdl.types import Array, Arrays, Batch, Count, Metrics, Positive, UserError, printable


@dataclasses.dataclass(frozen=True)
class SeriesAnomalies(Task):
    """Outputs [B, T] against targets [B, T], values of a series of `fdl.data.formats.nab`; the mean squared error is the loss.

    The test split's "nab" is the benchmark's score (`fdl.tasks.nab_score`) of the errors after `rolling_likelihood`, at the one
    threshold for all series that makes it the highest, as the published figures are. The checkpoint is chosen by the loss.

    Attributes:
        error_limit: squared errors are cut to this, in the squared deviations of a series' first part.
        quiet: after an alarm, only a higher score is one for so many points.
    """

    error_limit: Positive = 100.0
    quiet: Count = 150

    monitor: ClassVar[str] = "loss"
    better: ClassVar[Better] = "min"
    headline: ClassVar[str] = "nab"
    styles: ClassVar[Mapping[str, MetricStyle]] = {"nab": MetricStyle(better="max"), "loss": MetricStyle(better="min")}

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        return {"loss": jnp.minimum(_error(outputs, batch), self.error_limit)}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the error at each point [B]."""
        return jnp.minimum(_error(self.apply(model, variables, batch, train=False, rngs=rngs), batch), self.error_limit)

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "nab" of the test split; the others have no point that the benchmark scores."""
        extra = view.splits.facts.extra
        learnt = np.array([nab.probation(length) for length in extra["lengths"]])
        if not (rows["time"] >= learnt[rows["series"]]).any():
            return {}
        return {"nab": nab_score(self._scores(view), extra["labels"])[0]}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score a windowed Gaussian (the benchmark's own), and the distance from each series' first mean, without any model."""
        extra = splits.facts.extra
        scaled = _by_series([(rows, rows["targets"][:, -1]) for rows in _parts(splits)], extra["lengths"])
        values = _by_series([(rows, rows["value"]) for rows in _parts(splits)], extra["lengths"])
        distance = [self._alarms(np.minimum(np.square(each), self.error_limit)) for each in scaled]
        found = {"windowed Gaussian": [windowed_gaussian(each) for each in values], "distance from the mean": distance}
        return {name: {"nab": nab_score(scores, extra["labels"])[0]} for name, scores in found.items()}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: self._alarm_panel(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write scores.csv for a user's series (a CSV with timestamp and value): each point's anomaly score."""
        path = Path(source).expanduser()
        if not path.is_file():
            raise UserError(
                f"--input: there is no file {printable(source)!r}; give a CSV file with timestamp and value"
            )
        times, values = nab.read_series(path, Request())
        window, width = view.splits.train["inputs"].shape[1], view.splits.train["targets"].shape[1]
        rows = nab.rows_of(values, window, "reconstruct" if width > 1 else "forecast")
        rows["series"] = np.zeros(len(values), np.int32)
        scores = self._alarms(view.decoded(rows))
        lines = [f"{time},{value:.6g},{score:.4f}" for time, value, score in zip(times, values, scores, strict=True)]
        return write_all(out, {"scores.csv": "\n".join(["timestamp,value,anomaly_score", *lines]) + "\n"})

    def _scores(self, view: View) -> list[np.ndarray]:
        """Return the anomaly score of every point of each series."""
        parts = [(rows, view.decoded(rows)) for rows in _parts(view.splits)]
        errors = _by_series(parts, view.splits.facts.extra["lengths"])
        return [self._alarms(each) for each in errors]

    def _alarms(self, errors: np.ndarray) -> np.ndarray:
        return keep_first(rolling_likelihood(errors), self.quiet)

    def _alarm_panel(self, view: View, most: int = 6) -> Panel:
        """Draw some series with their labelled windows and the alarms at the best threshold."""
        extra, scores = view.splits.facts.extra, self._scores(view)
        reached, threshold = nab_score(scores, extra["labels"])
        values = _by_series([(rows, rows["targets"][:, -1]) for rows in _parts(view.splits)], extra["lengths"])
        shown = [number for number, labels in enumerate(extra["labels"]) if labels][:most]
        figure, axes = figures.new(1.7 * len(shown), rows=len(shown))
        for ax, number in zip(axes.flat, shown, strict=True):
            figures.titled(ax, extra["series"][number].rpartition("/")[2].removesuffix(".csv"))
            ax.plot(values[number], color=figures.GREY, linewidth=0.6, rasterized=True)
            for first, last in extra["labels"][number]:
                ax.axvspan(first, last, color=figures.GREEN, alpha=0.25, linewidth=0)
            start = nab.probation(len(values[number]))
            alarms = start + np.flatnonzero(scores[number][start:] >= threshold)
            ax.plot(alarms, values[number][alarms], ".", color=figures.RED, markersize=5)
        text = f"Labelled windows in green, alarms at threshold {threshold:.3g} in red; over all series {reached:.1f}."
        return Panel("Alarms", text, figure)


def rolling_likelihood(errors: np.ndarray, history: int = 8000) -> np.ndarray:
    """Compute how many deviations each error [T] is above the mean of the errors up to it (the last `history` at most).

    Under a normal distribution it ranks points as their tail probability does (Ahmad et al. 2017, section 3.2), without
    meeting 1 for everything far out. 0 for the first 100 points.
    """
    sums, squares = (np.concatenate([[0], np.cumsum(each)]) for each in (errors, np.square(errors)))
    end = np.arange(1, len(errors) + 1)
    start = np.maximum(0, end - history)
    mean = (sums[end] - sums[start]) / (end - start)
    variance = (squares[end] - squares[start]) / (end - start) - np.square(mean)
    return np.where(end > 100, (errors - mean) / np.sqrt(np.maximum(variance, 1e-12)), 0.0)


def keep_first(scores: np.ndarray, quiet: int) -> np.ndarray:
    """Set a score [T] to 0 unless it is higher than all of the `quiet` before it: a lasting anomaly is one alarm."""
    padded = np.concatenate([np.full(quiet, -np.inf), scores])[:-1]
    before = np.lib.stride_tricks.sliding_window_view(padded, quiet).max(1)
    return np.where(scores > before, scores, 0.0)


def windowed_gaussian(values: np.ndarray, window: int = 6400, step: int = 100) -> np.ndarray:
    """Score each value [T] by 1 - its tail probability under the mean and deviation of those before it (NAB's own baseline).

    The window grows to `window` values, then moves on by `step` at a time.
    """
    from scipy.special import erfc

    known = np.arange(len(values))
    end = np.where(known <= window, known, window + (known - window) // step * step)
    start = np.maximum(0, end - window)
    deviations = np.array([values[a:b].std() if b > a else 1.0 for a, b in zip(start, end, strict=True)])
    means = np.array([values[a:b].mean() if b > a else 0.0 for a, b in zip(start, end, strict=True)])
    scores = 1 - erfc(np.abs(values - means) / np.where(deviations > 0, deviations, 1e-6) / np.sqrt(2)) / 2
    return np.where(known > 0, scores, 0.0)


def _parts(splits: Splits) -> Iterable[Arrays]:
    return [rows for rows in (splits.train, splits.validation, splits.test) if rows is not None]


def _by_series(parts: Iterable[tuple[Arrays, np.ndarray]], lengths: Sequence[int]) -> list[np.ndarray]:
    """Put values of rows back in the order of each series, float64."""
    found = [np.zeros(length) for length in lengths]
    for rows, values in parts:
        for number in np.unique(rows["series"]):
            own = rows["series"] == number
            found[number][rows["time"][own]] = values[own]
    return found


def _error(outputs: Array, batch: Batch) -> Array:
    return jnp.square(outputs - batch["targets"]).mean(-1)
