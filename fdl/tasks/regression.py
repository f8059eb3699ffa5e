"""A number for each example."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses, tables
from fdl.tasks.panels import regression
from fdl.tasks.task import Better, DrawPanel, Task, View
from fdl.types import Array, Batch, Metrics, Positive


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Outputs [B] or [B, 1] against targets [B], both in the target's own units.

    Attributes:
        loss: what is minimised: the squared error, the absolute, or Huber's (square up to `huber_delta`, then linear).
        huber_delta: in the target's units.
    """

    loss: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: Positive = 1.0

    monitor: ClassVar[str] = "rmse"
    better: ClassVar[Better] = "min"

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """The loss, the squared and the absolute error, each [B].

        Raises:
            ValueError: outputs are neither [B] nor [B, 1]: subtracting them would silently make a table of B x B.
        """
        targets = batch["targets"]
        if outputs.shape not in (targets.shape, (*targets.shape, 1)):
            raise ValueError(f"regression needs outputs {targets.shape} or {(*targets.shape, 1)}, got {outputs.shape}")
        outputs = outputs.reshape(targets.shape)
        scores = {"mse": losses.squared_error(outputs, targets), "mae": losses.absolute_error(outputs, targets)}
        huber = self.loss == "huber"
        return {"loss": losses.huber(outputs, targets, self.huber_delta) if huber else scores[self.loss], **scores}

    def finish(self, means: Metrics) -> Metrics:
        """Adds "rmse", the root of the mean square."""
        return {**means, "rmse": math.sqrt(means["mse"])}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """The mean of training, and a linear regression on the columns as they are (one-hot, median for missing)."""
        train, test = (np.asarray(rows["targets"], np.float64) for rows in (splits.train, splits.evaluated))
        found = {"mean of training": self._measured(np.broadcast_to(train.mean(0), test.shape), test)}
        features, rows = (
            tables.linear_features(splits.train["inputs"], part["inputs"]) for part in (splits.train, splits.evaluated)
        )
        if features is not None and rows is not None:
            weights = np.linalg.lstsq(features, train, rcond=None)[0]
            found["linear regression"] = self._measured(rows @ weights, test)
        return found

    def _measured(self, predicted: np.ndarray, targets: np.ndarray) -> Metrics:
        scores = self.score(jnp.asarray(predicted, jnp.float32), {"targets": jnp.asarray(targets, jnp.float32)})
        return self.finish({name: float(np.asarray(values, np.float64).mean()) for name, values in scores.items()})

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return regression.panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """predictions.csv: the user's rows, as they are, with the column `prediction` after them."""
        given = tables.read_rows(source, view.splits.facts)
        predicted = regression.flat(view.outputs(given.rows))
        table = tables.predictions_csv(given, {"prediction": [f"{value:.6g}" for value in predicted]})
        return write_all(out, {"predictions.csv": table})

