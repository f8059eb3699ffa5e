"""Two classes of which one is rare: the ranking by its probability counts, not the share of right answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.tasks import losses, table_baselines, tables
from fdl.tasks.classification import Classification
from fdl.tasks.task import Better, MetricStyle, View
from fdl.types import Array, Arrays, Batch, Metrics, UserError


@dataclasses.dataclass(frozen=True)
class RareClass(Classification):
    """A classification of two classes, 1 the rare one, measured by the area under its precision-recall and ROC curves."""

    monitor: ClassVar[str] = "average_precision"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "average_precision": MetricStyle(better="max"),
        "auroc": MetricStyle(better="max"),
        **Classification.styles,
    }

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the rare class's probability [B]."""
        outputs = self.apply(model, variables, batch, train=False, rngs=rngs)
        return jax.nn.softmax(losses.two_logits(outputs))[:, 1]

    def measure(self, view: View, rows: Arrays) -> Metrics:
        return ranking_metrics(rows["targets"], view.decoded(rows))

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse labels other than 0 and 1, and splits without both."""
        super().check(outputs, splits)
        require_both(splits)

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the commonest class and, for a table, a logistic regression and a random forest."""
        test, found = splits.evaluated, super().baselines(splits)
        if tables.is_tabular(splits.train["inputs"]):
            given = table_baselines.probabilities(splits.train["inputs"], splits.train["targets"], test["inputs"])
            found |= {name: ranking_metrics(test["targets"], scores) for name, scores in given.items()}
        return found


def ranking_metrics(labels: np.ndarray, scores: np.ndarray) -> Metrics:
    """Compute the average precision and the area under the ROC curve of scores [N] that shall be higher for label 1."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = np.asarray(scores, np.float64)
    return {
        "average_precision": float(average_precision_score(labels, scores)),
        "auroc": float(roc_auc_score(labels, scores)),
    }


def require_both(splits: Splits) -> None:
    """Check that every held-out split has rows labelled 0 and rows labelled 1.

    Raises:
        UserError: one has not, so that no curve is defined.
    """
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        if rows is not None and set(np.unique(np.asarray(rows["targets"])).tolist()) != {0, 1}:
            raise UserError(
                f"the {name} split of {splits.name} needs rows of both classes, 0 and 1; hold out more rows, or set "
                "data.cut=stratified"
            )
