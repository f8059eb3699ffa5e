"""Preparation of tables: numeric and category columns to one array, and targets brought to a common scale.

Legend: B batch, F numeric columns, K category columns, V categories of all columns together.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Op, Statistics
from fdl.types import Array, Arrays, Batch, Count, Draw, UserError


@dataclasses.dataclass(frozen=True)
class Tabular(Op):
    """{"numeric": [B, F] with NaN where missing, "category": int [B, K] or [B]} to float32 [B, F + missing + V].

    Side by side: the numeric columns, missing cells filled with the training median, then scaled; for every column with
    a missing cell in the training split, 1 where this row's is missing; each category column one-hot, all zeros for a category
    that no training row has. "category" may be absent.

    Attributes:
        scale: "standard": less the mean, over the standard deviation. "quantile": each value's rank among the training
            rows', turned into a standard normal's value of that rank; outliers lose their weight, and values beyond the
            training range meet its ends.
        quantiles: how finely ranks are measured.
        category: "one_hot", or "index": the inputs stay {"numeric": float32 [B, F + missing], "category": int32 [B, K]}, for a
            model with embeddings. An index counts the categories of its column that training rows have; the one after the last
            is for any other.
    """

    scale: Literal["standard", "quantile"] = "standard"
    quantiles: Count = 1000
    category: Literal["one_hot", "index"] = "one_hot"

    def fit(self, train: Arrays) -> Statistics:
        numeric = train["inputs"]["numeric"]
        parts = [self._fit_column(np.asarray(numeric[:, place], np.float64)) for place in range(numeric.shape[1])]
        statistics = {name: np.stack([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        columns = _columns(train["inputs"]) if "category" in train["inputs"] else np.empty((1, 0), int)
        seen = [np.unique(columns[:, place]) for place in range(columns.shape[1])]
        return statistics | {
            "categories": np.concatenate([np.empty(0, np.int32), *seen]).astype(np.int32),
            "category_counts": np.array([len(values) for values in seen], np.int32),
        }

    def _fit_column(self, column: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the statistics of one column [N], which is all that is ever held as float64."""
        missing = np.isnan(column)
        median = 0.0 if missing.all() else np.median(column[~missing])
        filled = np.where(missing, median, column)
        found = {"median": np.asarray(median), "incomplete": missing.any()}
        if self.scale == "standard":
            return found | {"shift": filled.mean(), "factor": 1 / scale_of(filled.std(), filled.mean(), len(filled))}
        return found | {"quantiles": np.quantile(filled, _ranks(self.quantiles, len(filled))).astype(np.float32)}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        x = batch["inputs"]["numeric"].astype(jnp.float32)
        columns = []
        if x.shape[1]:
            missing = jnp.isnan(x)
            filled = jnp.where(missing, statistics["median"].astype(np.float32)[None], x)
            incomplete = np.flatnonzero(statistics["incomplete"])
            columns = [self._scale(filled, statistics), missing[:, incomplete].astype(jnp.float32)]
        if "category" not in batch["inputs"]:
            return {**batch, "inputs": jnp.concatenate(columns, axis=1)}
        same = _same_category(batch["inputs"], statistics)
        if self.category == "one_hot":
            return {
                **batch,
                "inputs": jnp.concatenate([*columns, *(found.astype(jnp.float32) for found in same)], axis=1),
            }
        index = [jnp.where(found.any(1), found.argmax(1), found.shape[1]).astype(jnp.int32) for found in same]
        numeric = jnp.concatenate(columns, axis=1) if columns else x
        return {**batch, "inputs": {"numeric": numeric, "category": jnp.stack(index, axis=1)}}

    def _scale(self, x: Array, statistics: Statistics) -> Array:
        if self.scale == "standard":
            shift, factor = (statistics[name].astype(np.float32)[None] for name in ("shift", "factor"))
            return (x - shift) * factor
        ranks = _ranks(statistics["quantiles"].shape[1], statistics["quantiles"].shape[1])

        def rank(x: Array, at: Array) -> Array:
            # Equal quantiles, as of a column with a cap, are given the middle of their ranks: the mean of both
            # directions.
            return (jnp.interp(x, at, ranks) - jnp.interp(-x, -at[::-1], -ranks[::-1])) / 2

        quantiles = jnp.asarray(statistics["quantiles"])
        return jax.scipy.special.ndtri(jax.vmap(rank, in_axes=(1, 0), out_axes=1)(x, quantiles))


@dataclasses.dataclass(frozen=True)
class ScaleTargets(Op):
    """Adds the mean and standard deviation of the training targets, by which a regression task scales its model's outputs.

    The batch gets "target_mean" and "target_deviation", float32 of the shape of its targets [B, ...]; "targets" stay in their
    unit. A model is then trained to give z with `unscale_outputs(z, batch)` as the prediction, so that its first steps do not
    go into learning a large mean, and every metric and prediction is in the targets' own unit.
    """

    def fit(self, train: Arrays) -> Statistics:
        targets = train["targets"]
        if not np.issubdtype(targets.dtype, np.floating):
            raise UserError(f"ScaleTargets is for targets that are values, and these are {targets.dtype}: leave it out")
        targets = np.asarray(targets, np.float64)
        mean = targets.mean(0)
        return {"mean": mean, "deviation": scale_of(targets.std(0), mean, len(targets))}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        count = len(jax.tree.leaves(batch["inputs"])[0])
        return {**batch, **scale_columns(statistics["mean"], statistics["deviation"], count)}


def scale_columns(mean: np.ndarray, deviation: np.ndarray, count: int) -> Batch:
    """Return "target_mean" and "target_deviation" of `count` rows, float32: what `unscale_outputs` reads."""
    return {
        f"target_{name}": jnp.broadcast_to(value.astype(np.float32)[None], (count, *value.shape))
        for name, value in (("mean", mean), ("deviation", deviation))
    }


def unscale_outputs(outputs: Array, batch: Batch) -> Array:
    """Convert outputs z of a model, in units of the training targets' deviation around their mean, to the targets' own unit.

    Outputs [B, ...] of as many numbers as the targets, such as [B, 1] for [B], keep their shape; without `ScaleTargets` they
    are returned as they are.

    Raises:
        UserError: there are more outputs than numbers of a target, or fewer.
    """
    if "target_mean" not in batch:
        return outputs
    if outputs.size != batch["target_mean"].size:
        raise UserError(
            f"the model gives {outputs.shape[1:]} numbers for each target of {batch['target_mean'].shape[1:]}: set model.outputs"
        )
    mean, deviation = (batch[name].reshape(outputs.shape) for name in ("target_mean", "target_deviation"))
    return mean + deviation * outputs


def scale_of(deviation: np.ndarray, mean: np.ndarray, count: int) -> np.ndarray:
    """Return the deviation, or 1 where it is only the rounding of a constant column's mean (as scikit-learn's StandardScaler).

    Args:
        deviation, mean: of `count` float64 values each.
    """
    eps = np.finfo(np.float64).eps
    constant = np.square(deviation) <= count * eps * np.square(deviation) + np.square(count * mean * eps)
    return np.where(constant, 1.0, deviation)


def _ranks(quantiles: int, count: int) -> np.ndarray:
    """Return ranks inside (0, 1), so that no value becomes infinite, float32."""
    count = min(quantiles, count)
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def _columns(inputs: Batch) -> Array:
    """Return the category columns [B, K]."""
    return inputs["category"].reshape(len(inputs["category"]), -1)


def _same_category(inputs: Batch, statistics: Statistics) -> list[Array]:
    """Return for each category column bool [B, its categories in training]: the row is of that category."""
    known = np.split(statistics["categories"], np.cumsum(statistics["category_counts"])[:-1])
    columns = _columns(inputs)
    return [columns[:, place, None] == values[None] for place, values in enumerate(known)]
