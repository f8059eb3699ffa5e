"""A number for each example."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data import ops
from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.models.members import Members
from fdl.tasks import ensembles, losses, table_baselines, tables
from fdl.tasks.losses import Score
from fdl.tasks.panels import regression
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View
from fdl.types import Array, Batch, Metrics, Positive


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Outputs against targets [B, ...], both in the target's own unit: of the targets' shape, or [B, numbers of a target].

    With `ops.ScaleTargets` among `data.prepare`, the model gives its outputs in units of the training targets' deviation around
    their mean; outputs, metrics and predictions are converted back to the targets' unit, and the loss alone stays scaled.

    Attributes:
        loss: what is minimised: the squared error, the absolute, or Huber's (square up to `huber_delta`, then linear).
        huber_delta: in the target's units; with `ops.ScaleTargets`, in their deviations.
    """

    loss: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: Positive = 1.0

    monitor: ClassVar[str] = "rmse"
    better: ClassVar[Better] = "min"
    styles: ClassVar[Mapping[str, MetricStyle]] = {"rmse": MetricStyle(better="min"), "mae": MetricStyle(better="min")}

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model, and convert its outputs to the targets' unit; in inference an ensemble's are averaged."""
        outputs = super().apply(model, variables, batch, **settings)
        if "mutable" in settings:
            return self._in_own_unit(outputs[0], batch), outputs[1]
        return self._in_own_unit(outputs if settings.get("train") else ensembles.average_outputs(outputs), batch)

    def _in_own_unit(self, outputs: Array | Members, batch: Batch) -> Array | Members:
        if not isinstance(outputs, Members):
            return ops.unscale_outputs(outputs, batch)
        return Members(jax.vmap(lambda one: ops.unscale_outputs(one, batch), 1, 1)(outputs.values))

    def score(self, outputs: Array | Members, batch: Batch) -> dict[str, Score]:
        """Compute the loss, the squared and the absolute error, each [B], the mean over a target's numbers (and members).

        Raises:
            ValueError: outputs have another shape: subtracting them could silently make a table of B x B.
        """
        if isinstance(outputs, Members):
            return ensembles.score_members(self.score, outputs, batch)
        targets = batch["targets"]
        if outputs.shape not in (targets.shape, (len(targets), math.prod(targets.shape[1:]))):
            raise ValueError(
                f"regression needs outputs {targets.shape} or {(len(targets), math.prod(targets.shape[1:]))}, "
                f"got {outputs.shape}"
            )
        made = outputs.reshape(targets.shape)
        scores = {"mse": losses.squared_error(made, targets), "mae": losses.absolute_error(made, targets)}
        if "target_deviation" in batch:
            made, targets = made / batch["target_deviation"], targets / batch["target_deviation"]
        loss = {
            "mse": lambda: losses.squared_error(made, targets),
            "mae": lambda: losses.absolute_error(made, targets),
            "huber": lambda: losses.huber(made, targets, self.huber_delta),
        }
        return {"loss": loss[self.loss](), **scores}

    def finish(self, means: Metrics) -> Metrics:
        """Add "rmse", the root of the mean square."""
        return {**means, "rmse": math.sqrt(means["mse"])}

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the mean of training; for a table, a linear regression and stronger methods; for a series, the last value.

        The regression is on the columns as they are: one-hot, the median for what is missing. See `table_baselines` for the rest.
        """
        if splits.evaluated is None:
            return {}
        train, test = (np.asarray(rows["targets"], np.float64) for rows in (splits.train, splits.evaluated))
        predicted = {"mean of training": np.broadcast_to(train.mean(0), test.shape)}
        features, rows = (
            tables.linear_features(splits.train["inputs"], part["inputs"]) for part in (splits.train, splits.evaluated)
        )
        if features is not None and rows is not None:
            predicted["linear regression"] = rows @ np.linalg.lstsq(features, train, rcond=None)[0]
            predicted |= table_baselines.regressions(splits.train["inputs"], train, splits.evaluated["inputs"])
        last = tables.last_values(splits.evaluated["inputs"], splits.facts)
        if last is not None:
            predicted["last value"] = np.broadcast_to(last, test.shape)
        return {name: self._measured(values, test) for name, values in predicted.items()}

    def _measured(self, predicted: np.ndarray, targets: np.ndarray) -> Metrics:
        """Return all metrics except the loss, which may be scaled."""
        scores = self.score(jnp.asarray(predicted, jnp.float32), {"targets": jnp.asarray(targets, jnp.float32)})
        means = {
            name: float(np.asarray(values, np.float64).mean()) for name, values in scores.items() if name != "loss"
        }
        return self.finish(means)

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return regression.panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: the user's rows, unchanged, with the column `prediction` after them."""
        given = tables.read_rows(source, view.splits.facts)
        predicted = np.asarray(view.outputs(given.rows), np.float64).reshape(len(given.cells), -1)
        names = (
            ["prediction"] if predicted.shape[1] == 1 else [f"prediction_{i + 1}" for i in range(predicted.shape[1])]
        )
        added = {name: [f"{value:.6g}" for value in column] for name, column in zip(names, predicted.T, strict=True)}
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})
