"""Anomalies by how badly a model, trained on normal rows alone, reconstructs a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import tables
from fdl.tasks.losses import Score
from fdl.tasks.panels import figures
from fdl.tasks.rare import ranking_metrics, require_both
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View
from fdl.types import Array, Arrays, Batch, Fraction, Metrics, UserError, take


@dataclasses.dataclass(frozen=True)
class AnomalyDetection(Task):
    """Outputs [B, F] against the prepared inputs [B, F]; targets [B] are 1 for an anomaly, which no loss sees, and 0 else.

    The checkpoint is chosen by the normal rows' error: labels of anomalies are used to measure, never to train or choose.

    Attributes:
        alarms: the share of the normal training rows whose error is above the threshold of an alarm.
    """

    alarms: Fraction = 0.02

    monitor: ClassVar[str] = "loss"
    better: ClassVar[Better] = "min"
    headline: ClassVar[str] = "auroc"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "auroc": MetricStyle(better="max"),
        "average_precision": MetricStyle(better="max"),
        "recall": MetricStyle(percent=True, better="max"),
        "precision": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle(better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Score]:
        """Compute the mean squared error [B] with weight 1 for normal rows and 0 for anomalies."""
        return {"loss": (_error(outputs, batch["inputs"]), (batch["targets"] == 0).astype(jnp.float32))}

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the error of each row [B]."""
        return _error(self.apply(model, variables, batch, train=False, rngs=rngs), batch["inputs"])

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "auroc" and "average_precision" of the errors, and "recall" and "precision" of the alarms."""
        errors, labels = _errors(view, rows), np.asarray(rows["targets"])
        alarm = errors > self.threshold(view)
        hits = float((alarm & (labels == 1)).sum())
        return ranking_metrics(labels, errors) | {
            "recall": hits / max(1, (labels == 1).sum()),
            "precision": hits / max(1, alarm.sum()),
        }

    def threshold(self, view: View) -> float:
        """Compute the error above which a row is an alarm, from the normal training rows."""
        train = view.splits.train
        return float(np.quantile(_errors(view, take(train, np.asarray(train["targets"]) == 0)), 1 - self.alarms))

    def check(self, outputs: Any, splits: Splits) -> None:
        require_both(splits)
        if not (np.asarray(splits.train["targets"]) == 0).any():
            raise UserError(f"{splits.name} has no normal training row, of target 0, to learn from")

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score ECOD, which trains nothing, on a table of numbers."""
        if not tables.is_tabular(splits.train["inputs"]):
            return {}
        train = tables.numeric(splits.train["inputs"])[np.asarray(splits.train["targets"]) == 0]
        scores = ecod(train, tables.numeric(splits.evaluated["inputs"]))
        return {"ECOD": ranking_metrics(splits.evaluated["targets"], scores)}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: errors_by_class(view, self.threshold(view))]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: the user's rows, with their errors after them, the larger the stranger."""
        given = tables.read_rows(source, view.splits.facts)
        rows = given.rows | {"targets": np.zeros(len(given.cells), np.int32)}
        added = {"error": [f"{error:.6g}" for error in _errors(view, rows)]}
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})


def ecod(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Score how far out each row is by the tails of every column's empirical distribution (ECOD: Li et al. 2022, algorithm 1).

    The sum over the columns of -log P(X <= x), of -log P(X >= x), and of the one on the side of the column's longer tail, by
    its skewness; the largest of the three. Probabilities are shares of the training rows and the row itself.

    Args:
        train: float [N, F], without missing values.
        rows: float [R, F].

    Returns:
        float64 [R], the larger the stranger.
    """
    from scipy.stats import skew

    tails = np.zeros((3, len(rows)))
    for column, values in zip(np.sort(train, axis=0).T, rows.T, strict=True):
        below = np.searchsorted(column, values, side="right")
        above = len(column) - np.searchsorted(column, values, side="left")
        left, right = (-np.log((count + 1) / (len(column) + 1)) for count in (below, above))
        tails += [left, right, left if skew(column) < 0 else right]
    return tails.max(0)


def errors_by_class(view: View, threshold: float) -> Panel:
    """Draw how the errors of normal rows and of anomalies are spread."""
    rows = view.splits.evaluated
    errors, labels = _errors(view, rows), np.asarray(rows["targets"])
    figure, axes = figures.new(3.2)
    ax = figures.titled(axes[0, 0], "", "reconstruction error", "share of rows")
    edges = np.geomspace(max(errors.min(), 1e-9), errors.max() * 1.001, 50)
    for label, name, colour in ((0, "normal", figures.BLUE), (1, "anomaly", figures.RED)):
        part = errors[labels == label]
        ax.hist(
            part, edges.tolist(), weights=np.full(len(part), 1 / max(1, len(part))), color=colour, alpha=0.6, label=name
        )
    ax.set_xscale("log")
    ax.axvline(threshold, color=figures.GREY, linewidth=1)
    ax.legend(fontsize=8, frameon=False)
    caught, false = ((errors[labels == label] > threshold).mean() for label in (1, 0))
    text = f"Above the line, the threshold from training rows, are {caught:.1%} of the anomalies and {false:.1%} of the others."
    return Panel("Errors of normal rows and anomalies", text, figure)


def _error(outputs: Array, inputs: Array) -> Array:
    """Compute the mean over a row's numbers of the squared difference, [B]."""
    return jnp.square(outputs.reshape(inputs.shape) - inputs).mean(axis=tuple(range(1, inputs.ndim)))


def _errors(view: View, rows: Arrays) -> np.ndarray:
    return view.decoded(rows).astype(np.float64)
