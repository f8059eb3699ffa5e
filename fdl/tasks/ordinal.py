"""Ranks: classes that have an order (grades, stars, stages), where a near miss is better than a far one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses, tables
from fdl.tasks.panels.answers import class_names
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Panel, Task, View, output_width
from fdl.types import Array, Batch, Metrics, UserError


@dataclasses.dataclass(frozen=True)
class Ordinal(Task):
    """K ranks by K - 1 logits [B, K - 1] of "it is above rank k", as `fdl.models.Coral` gives them; targets are ranks [B].

    The prediction is how many of these are above 0: the median of the ranks' distribution where they fall with k.
    """

    monitor: ClassVar[str] = "mae"
    better: ClassVar[Better] = "min"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "mae": MetricStyle("ranks", better="min"),
        "accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """Compute the loss, the distance in ranks and whether it is 0, each [B]."""
        distance = jnp.abs((outputs > 0).sum(-1) - batch["targets"]).astype(jnp.float32)
        return {
            "loss": losses.ordinal_cross_entropy(outputs, batch["targets"]),
            "mae": distance,
            "accuracy": (distance == 0).astype(jnp.float32),
        }

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the predicted rank, int32 [B]."""
        return (self.apply(model, variables, batch, train=False, rngs=rngs) > 0).sum(-1).astype(jnp.int32)

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse ranks that the outputs cannot name."""
        width = output_width(outputs)
        for rows in (splits.train, splits.validation, splits.test):
            ranks = np.zeros(1, int) if rows is None else np.asarray(rows["targets"])
            if not np.issubdtype(ranks.dtype, np.integer):
                raise UserError(
                    f"ranks are whole numbers from 0, and the targets of {splits.name} are {ranks.dtype}: number them"
                )
            if width is not None and (ranks.min() < 0 or ranks.max() > width):
                raise UserError(
                    f"the ranks of {splits.name} go from {ranks.min()} to {ranks.max()}, and the model tells 0 to {width} "
                    "apart; leave model.ranks out and count from 0"
                )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score always predicting the median rank of training."""
        test = np.asarray(splits.evaluated["targets"])
        distance = np.abs(test - int(np.median(np.asarray(splits.train["targets"]))))
        return {"median of training": {"mae": float(distance.mean()), "accuracy": float((distance == 0).mean())}}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: confusion(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv: the user's rows, with the predicted rank and the probability of each after them."""
        given = tables.read_rows(source, view.splits.facts)
        logits = np.asarray(view.outputs(given.rows), np.float64)
        above = np.asarray(jax.nn.sigmoid(np.minimum.accumulate(logits, axis=1)))  # made to fall, should they not
        edges = np.pad(above, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        names = class_names(view.splits, logits.shape[1] + 1)
        added = {"prediction": [names[rank] for rank in (logits > 0).sum(1)]}
        added |= {
            f"P({name})": [f"{p:.6f}" for p in column]
            for name, column in zip(names, (edges[:, :-1] - edges[:, 1:]).T, strict=True)
        }
        return write_all(out, {"predictions.csv": tables.predictions_csv(given, added)})


def confusion(view: View) -> Panel:
    """Tabulate true against predicted ranks."""
    parts = [(batch["targets"], decoded) for batch, decoded in view.over(view.splits.evaluated)]
    truth, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    count = 1 + int(max(truth.max(), found.max()))
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (truth, found), 1)
    names = class_names(view.splits, count)
    rows = [(name, *map(str, line)) for name, line in zip(names, matrix, strict=False)]
    return Panel(
        "True and predicted ranks",
        "Examples of the test split; a row for each true rank.",
        header=("", *names),
        rows=rows,
    )
