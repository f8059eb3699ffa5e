"""One class out of C."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fdl.data.splits import Splits
from fdl.tasks import losses
from fdl.tasks.panels import classification
from fdl.tasks.picture_inputs import predict_pictures
from fdl.tasks.task import Panel, View
from fdl.types import Array, Batch, Count, Metrics, Probability


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy over logits [B, C]; targets are class numbers [B], or probabilities [B, C] (mixed labels).

    A single output [B, 1] is the logit of the second of two classes: its sigmoid, and binary cross-entropy.

    Attributes:
        label_smoothing: the share of each label spread evenly over all classes (Szegedy et al. 2016, section 7).
        top: classes named in each row of predictions.csv, likeliest first.
    """

    label_smoothing: Probability = 0.0
    top: Count = 5

    monitor: ClassVar[str] = "accuracy"
    better: ClassVar[Literal["max", "min"]] = "max"

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """The loss [B] (nats, against smoothed labels) and accuracy [B] (0 or 1; mixed labels count by their largest).

        Where labels are smoothed, "cross_entropy" [B] is the loss without it: the figure to compare with other runs.
        """
        outputs, targets = losses.two_logits(outputs), batch["targets"]
        scores = {
            "loss": losses.cross_entropy(outputs, targets, self.label_smoothing),
            "accuracy": losses.accuracy(outputs, targets),
        }
        if self.label_smoothing:
            scores["cross_entropy"] = losses.cross_entropy(outputs, targets)
        return scores

    def finish(self, means: Metrics) -> Metrics:
        return dict(means)

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Always the commonest class of training."""
        train, test = np.asarray(splits.train["targets"]), np.asarray(splits.evaluated["targets"])
        return {"majority class": {"accuracy": float(np.mean(test == np.bincount(train).argmax()))}}

    def panels(self, view: View) -> Iterable[Panel]:
        return classification.panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        return predict_pictures(view, source, out, self.top)

    def sample(self, view: View) -> str:
        return ""
