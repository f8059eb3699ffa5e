"""Ratings of pairs of a user and an item."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax import linen as nn

from fdl.data import ops
from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks.losses import Score
from fdl.tasks.panels import figures, regression
from fdl.tasks.recommendation import list_csv, user_number
from fdl.tasks.regression import Regression
from fdl.tasks.task import DrawPanel, MetricStyle, Panel, Task, View
from fdl.types import Arrays, Batch, Count, Metrics, NonNegative


@dataclasses.dataclass(frozen=True)
class Ratings(Regression):
    """A regression of a `BiasedFactors` model, with decay of every parameter in proportion to how many ratings it takes part in.

    Each rating adds decay * (squared norms behind it) to its loss, so that the pull on a user or a film
    grows with its ratings (Zhou et al. 2008, weighted-lambda regularisation).

    Attributes:
        bias_decay, decay: of the biases and of the factors, in units of the squared deviation of the ratings.
        top: films in the list that a prediction writes.
    """

    bias_decay: NonNegative = 0.02
    decay: NonNegative = 0.05
    top: Count = 10

    styles: ClassVar[Mapping[str, MetricStyle]] = {name: MetricStyle("stars", better="min") for name in ("rmse", "mae")}

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model; "rating" is converted to stars."""
        outputs = Task.apply(self, model, variables, batch, **settings)
        made, *rest = outputs if "mutable" in settings else (outputs,)
        made = {**made, "rating": ops.unscale_outputs(made["rating"], batch)}
        return (made, *rest) if rest else made

    def score(self, outputs: Any, batch: Batch) -> dict[str, Score]:
        """Compute the loss with its decay, the squared and the absolute error, each [B]; errors after clipping to 0.5 to 5."""
        scores = super().score(outputs["rating"], batch)
        clipped = super().score(outputs["rating"].clip(0.5, 5), batch)
        decay = self.bias_decay * outputs["biases"] + self.decay * outputs["factors"]
        return {**clipped, "loss": scores["loss"] + decay}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the mean of training, and damped biases."""
        test = np.asarray(splits.evaluated["targets"], np.float64)
        mean = np.full(len(test), np.asarray(splits.train["targets"], np.float64).mean())
        predicted = {"mean of training": mean, "damped biases": damped_biases(splits.train, splits.evaluated["inputs"])}
        return {name: _errors(values - test) for name, values in predicted.items()}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        predicted = functools.cache(lambda: _predicted(view, view.splits.evaluated))
        return [lambda: by_count(view, predicted()), lambda: regression.residuals(view, predicted())]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write recommendations.csv: the unrated films of a user (--input=USER_ID) with the highest predicted ratings."""
        extra = view.splits.facts.extra
        user = user_number(source, extra)
        items = np.setdiff1d(np.arange(extra["items"]), extra["rated"][user]).astype(np.int32)
        rows = {
            "inputs": {"user": np.full(len(items), user, np.int32), "item": items},
            "targets": np.zeros(len(items), np.float32),
        }
        ratings = _predicted(view, rows)
        best = np.argsort(-ratings, kind="stable")[: self.top]
        return write_all(out, {"recommendations.csv": list_csv(items[best], ratings[best], "predicted rating", extra)})


def damped_biases(
    train: Arrays, pairs: Arrays, user_damping: float = 5, item_damping: float = 3, rounds: int = 15
) -> np.ndarray:
    """Predict mean + user's bias + item's bias, float64 [N]: each bias is its sum of residuals over (count + damping).

    Equations (1) to (3) of Koren 2010, repeated until they agree; clipped to 0.5 to 5.
    """
    user, item = train["inputs"]["user"], train["inputs"]["item"]
    rating = np.asarray(train["targets"], np.float64)
    sizes = [
        1 + max(int(rows["inputs"][name].max()) for rows in (train, {"inputs": pairs})) for name in ("user", "item")
    ]
    mean, of_users, of_items = rating.mean(), np.zeros(sizes[0]), np.zeros(sizes[1])
    for _ in range(rounds):
        of_items = np.bincount(item, rating - mean - of_users[user], sizes[1]) / (
            np.bincount(item, minlength=sizes[1]) + item_damping
        )
        of_users = np.bincount(user, rating - mean - of_items[item], sizes[0]) / (
            np.bincount(user, minlength=sizes[0]) + user_damping
        )
    return np.clip(mean + of_users[pairs["user"]] + of_items[pairs["item"]], 0.5, 5)


def by_count(view: View, ratings: np.ndarray) -> Panel:
    """Draw the error of test ratings [N] by how many training ratings a film has, beside that of damped biases."""
    train, test = view.splits.train, view.splits.evaluated
    count = np.bincount(train["inputs"]["item"], minlength=1 + int(test["inputs"]["item"].max()))[
        test["inputs"]["item"]
    ]
    truth = np.asarray(test["targets"], np.float64)
    groups = [(0, 1), (1, 4), (4, 16), (16, 64), (64, 10**9)]
    figure, axes = figures.new(3.0)
    ax = figures.titled(axes[0, 0], "", "training ratings of the film", "RMSE")
    for name, predicted, shift in (
        ("this model", ratings, -0.2), ("damped biases", damped_biases(train, test["inputs"]), 0.2)
    ):  # fmt: skip
        chosen = [(count >= low) & (count < high) for low, high in groups]
        values = [np.sqrt(np.mean(np.square((predicted - truth)[rows]))) if rows.any() else 0 for rows in chosen]
        ax.bar(np.arange(len(groups)) + shift, values, 0.38, label=name)
    ax.set_xticks(range(len(groups)), ["0", "1-3", "4-15", "16-63", "64 or more"])
    ax.legend(fontsize=8, frameon=False, loc="lower left")
    return Panel("Error by how well a film is known", "Of the test split.", figure)


def _predicted(view: View, rows: Arrays) -> np.ndarray:
    return np.clip(np.asarray(view.outputs(rows)["rating"], np.float64), 0.5, 5)


def _errors(error: np.ndarray) -> Metrics:
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.abs(error).mean()),
        "mse": float(np.mean(error**2)),
    }
