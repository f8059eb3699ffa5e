"""Several labels at once, each of which an example has or has not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses, tables
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View, output_width
from fdl.types import Array, Arrays, Batch, Metrics, UserError


@dataclasses.dataclass(frozen=True)
class MultiLabel(Task):
    """Binary cross-entropy over logits [B, K]; targets are float [B, K], 1 for each label that an example has, else 0."""

    monitor: ClassVar[str] = "f1"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "f1": MetricStyle(better="max"),
        "exact": MetricStyle(percent=True, better="max"),
        "label_accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """Compute the loss and the share of labels that are right, means over labels, and whether all are right, each [B]."""
        right = losses.binary_accuracy(outputs, batch["targets"])
        return {
            "loss": losses.binary_cross_entropy(outputs, batch["targets"]),
            "label_accuracy": right,
            "exact": (right == 1).astype(right.dtype),
        }

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute each label's probability [B, K]."""
        return jax.nn.sigmoid(self.apply(model, variables, batch, train=False, rngs=rngs))

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "f1", the mean over the labels of each one's F1 at probability 1/2 (0 for one that is never right)."""
        truth, found = _answers(view, rows)
        return {"f1": float(np.mean(_f1(truth, found > 0.5)))}

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse targets that are no yes-or-no for each output."""
        targets, width = np.asarray(splits.train["targets"]), output_width(outputs)
        if targets.ndim != 2 or not np.isin(targets, (0, 1)).all() or targets.dtype.kind != "f":
            raise UserError(
                f"several labels need float targets [B, K] of 0 and 1; {splits.name} has {targets.dtype}{list(targets.shape)}"
            )
        if width != targets.shape[1]:
            raise UserError(f"the model has {width} outputs for {targets.shape[1]} labels; leave model.outputs out")

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score giving every example the labels that more than half of the training examples have."""
        train, test = (np.asarray(rows["targets"]) for rows in (splits.train, splits.evaluated))
        given = np.broadcast_to(train.mean(0) > 0.5, test.shape)
        right = given == (test > 0.5)
        metrics = {"f1": float(np.mean(_f1(test, given))), "exact": float(right.all(1).mean())}
        return {"commonest labels": metrics | {"label_accuracy": float(right.mean())}}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: by_label(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: the user's rows, with a column for each label's probability after them."""
        facts = view.splits.facts
        given = tables.read_rows(source, facts)
        found = 1 / (1 + np.exp(-np.asarray(view.outputs(given.rows), np.float64)))
        added = {
            name: [f"{value:.6f}" for value in column]
            for name, column in zip(_names(view, found), found.T, strict=True)
        }
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})


def by_label(view: View) -> Panel:
    """Tabulate how often each label occurs, and how well it is found."""
    truth, found = _answers(view, view.splits.evaluated)
    f1 = _f1(truth, found > 0.5)
    rows = [
        (name, f"{int(truth[:, k].sum()):,}", f"{int((found[:, k] > 0.5).sum()):,}", f"{f1[k]:.4f}")
        for k, name in enumerate(_names(view, truth))
    ]
    return Panel("By label", "Of the test split.", header=("label", "examples", "given", "F1"), rows=rows)


def _answers(view: View, rows: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return (targets, probabilities), [N, K] each."""
    parts = [(batch["targets"], decoded) for batch, decoded in view.over(rows)]
    truth, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    return truth, found


def _f1(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Compute each label's 2 hits / (2 hits + misses + false alarms), [K]; 0 where all three are 0."""
    hits = ((truth > 0.5) & given).sum(0)
    return 2 * hits / np.maximum((truth > 0.5).sum(0) + given.sum(0), 1)


def _names(view: View, columns: np.ndarray) -> tuple[str, ...]:
    return view.splits.classes or tuple(f"label {k + 1}" for k in range(columns.shape[1]))
