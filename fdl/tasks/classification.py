"""One class out of C."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.models.members import Members
from fdl.tasks import ensembles, linear_baseline, losses, submission, tables
from fdl.tasks.linear_baseline import linear_accuracy
from fdl.tasks.losses import Score
from fdl.tasks.panels import classification
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.picture_inputs import predict_pictures
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View, output_width
from fdl.types import Array, Batch, Count, Metrics, NonNegative, Probability, UserError


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Softmax cross-entropy over logits [B, C]; targets are class numbers [B], or probabilities [B, C] (mixed labels).

    A single output [B, 1] is the logit of the second of two classes: its sigmoid, and binary cross-entropy. An ensemble's
    members train each by its own loss; in inference their probabilities are averaged. With `ops.ClassWeights` among
    `data.augment`, training weighs each example's loss by its class.

    Attributes:
        focal_gamma: above 0, the loss is the focal loss with this exponent (`losses.focal`), which leaves labels unsmoothed.
        label_smoothing: the share of each label spread evenly over all classes (Szegedy et al. 2016, section 7).
        top: classes named in each row of predictions.csv, likeliest first.
    """

    label_smoothing: Probability = 0.0
    focal_gamma: NonNegative = 0.0
    top: Count = 5

    monitor: ClassVar[str] = "accuracy"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats", better="min"),
        "cross_entropy": MetricStyle("nats", better="min"),
    }

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model; in inference the probabilities of an ensemble's members are averaged."""
        outputs = super().apply(model, variables, batch, **settings)
        return outputs if settings.get("train") else ensembles.average_probabilities(outputs)

    def score(self, outputs: Array | Members, batch: Batch) -> dict[str, Score]:
        """Compute the loss [B] (nats, against smoothed labels) and accuracy [B] (0 or 1; mixed labels count by their largest).

        Where the batch has "class_weight" [B] (`fdl.data.ops.ClassWeights`), the loss is weighted by it.
        Where the loss is another, "cross_entropy" [B] is the one without smoothing and focus, for comparing with other runs.
        """
        if isinstance(outputs, Members):
            return ensembles.score_members(self.score, outputs, batch)
        outputs, targets = losses.two_logits(outputs), batch["targets"]
        loss = (
            losses.focal(outputs, targets, self.focal_gamma)
            if self.focal_gamma
            else losses.cross_entropy(outputs, targets, self.label_smoothing)
        )
        weighted = (loss, batch["class_weight"]) if "class_weight" in batch else loss
        scores: dict[str, Score] = {"loss": weighted, "accuracy": losses.accuracy(outputs, targets)}
        if self.label_smoothing or self.focal_gamma:
            scores["cross_entropy"] = losses.cross_entropy(outputs, targets)
        return scores

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse labels that are not an output's index: they would cost nothing, and the loss would look good."""
        width = output_width(outputs)
        if width is None:
            return
        classes = 2 if width == 1 else width
        for name, rows in (("training", splits.train), ("validation", splits.validation), ("test", splits.test)):
            labels = np.asarray(rows["targets"]) if rows is not None else np.zeros(0, int)
            if not labels.size or not np.issubdtype(labels.dtype, np.integer):
                continue
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= classes:
                raise UserError(
                    f"the labels of the {name} split go from {low} to {high}, and the model has {width} outputs, for labels "
                    f"0 to {classes - 1}; leave model.outputs out or set it to {high + 1}, and count labels from 0"
                )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score always predicting the commonest class of training and, for pictures, a linear model on the pixels.

        On cached features where there are some (`fdl.train.frozen_features`).
        """
        train, test = np.asarray(splits.train["targets"]), np.asarray(splits.evaluated["targets"])
        found = {"majority class": {"accuracy": float(np.mean(test == np.bincount(train).argmax()))}}
        linear = linear_accuracy(splits)
        return found if linear is None else found | {linear_baseline.name_of(splits): {"accuracy": linear}}

    def data_panels(self, view: View) -> Sequence[DrawPanel]:
        return classification.data_panels(view)

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return classification.panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv for a user's table, and predictions.png too for pictures (a file, or a folder of them).

        For pictures, a table is Kaggle's sample submission: see `fdl.tasks.submission`.
        """
        facts = view.splits.facts
        if not tables.is_table(facts):
            if submission.is_sample(source):
                return submission.write_submission(view, source, out)
            return predict_pictures(view, source, out, self.top)
        given = tables.read_rows(source, facts)
        probabilities = softmax(view.outputs(given.rows))
        names = class_names(view.splits, probabilities.shape[1])
        added = tables.class_columns(probabilities, names, self.top)
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})
