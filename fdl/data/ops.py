"""Preparation of batches: each op is fitted to the training split once, then a pure function of a batch and its statistics.

The ops are traced inside the compiled step, on the device, for a whole batch at a time. What an op does not name
in its batch ("mask", ids) is handed through. The random ones are in `fdl.data.augment` and can be named from here as
well.

Legend: B batch, C channels, F features, K categories.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.augment import Cutmix, Cutout, Flip, Mixup, Noise, RandomWindow, Shift
from fdl.data.columns import Encoded
from fdl.data.splits import Op, Statistics
from fdl.types import Array, Arrays, Batch, Count, Draw, UserError, Whole

__all__ = [
    "Cutmix", "Cutout", "Flip", "Mixup", "NextToken", "Noise", "Pad", "RandomWindow", "Shift", "Standardize", "Tabular",
    "channel_statistics",
]  # fmt: skip

_ROWS_AT_ONCE = 4096
_SAMPLE = 1024
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Standardize(Op):
    """Inputs [B, ..., C] of any type to float32, shifted and scaled.

    Attributes:
        scale: "mean_std": by each channel's mean and standard deviation over the training split; "unit": divided by the
            largest value of the inputs' type (uint8: 255); "imagenet": by the mean and deviation of ImageNet's red,
            green and blue (0 to 255), for its pictures and for nets trained on them; "none": only converted.
    """

    scale: Literal["mean_std", "unit", "imagenet", "none"] = "mean_std"

    def fit(self, train: Arrays) -> Statistics:
        inputs = train["inputs"]
        channels = inputs.shape[-1]
        shift, factor = np.zeros(channels), np.ones(channels)
        if self.scale == "unit":
            if not np.issubdtype(inputs.dtype, np.integer):
                raise ValueError(f'Standardize("unit") is for integer inputs, not {inputs.dtype}: use "mean_std"')
            factor = np.full(channels, 1 / np.iinfo(inputs.dtype).max)
        elif self.scale == "imagenet":
            if channels != 3:
                raise UserError(f'scale "imagenet" is for images of 3 channels, not {channels}: set it to mean_std')
            shift, factor = 255 * np.array(_IMAGENET_MEAN), 1 / (255 * np.array(_IMAGENET_DEVIATION))
        elif self.scale == "mean_std":
            # Of pictures that are not in memory a sample must do: some at equal distances.
            every = -(-len(inputs) // _SAMPLE) if isinstance(inputs, Encoded) else 1
            mean, deviation = channel_statistics(np.asarray(inputs[::every]))
            # A constant channel becomes zero.
            shift, factor = mean, 1 / np.where(deviation > 0, deviation, 1)
        return {"shift": shift, "factor": factor}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        x = batch["inputs"].astype(jnp.float32)
        shape = (1,) * (x.ndim - 1) + (-1,)
        shift, factor = (statistics[name].astype(np.float32).reshape(shape) for name in ("shift", "factor"))
        return {**batch, "inputs": (x - shift) * factor}


@dataclasses.dataclass(frozen=True)
class Pad(Op):
    """Images [B, H, W, C] with `pixels` rows and columns of `value` (in the images' own unit) on every side."""

    pixels: Whole = 1
    value: float = 0.0

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        x = batch["inputs"]
        around = ((0, 0), (self.pixels, self.pixels), (self.pixels, self.pixels), (0, 0))
        return {**batch, "inputs": jnp.pad(x, around, constant_values=jnp.asarray(self.value, x.dtype))}


@dataclasses.dataclass(frozen=True)
class NextToken(Op):
    """Rows of tokens [B, T + 1] to inputs [B, T] and, one place on, targets [B, T], both int32."""

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        tokens = batch["inputs"].astype(jnp.int32)
        return {**batch, "inputs": tokens[:, :-1], "targets": tokens[:, 1:]}


@dataclasses.dataclass(frozen=True)
class Tabular(Op):
    """{"numeric": [B, F] with NaN where missing, "category": int [B]} to float32 [B, F + missing + K].

    Side by side: the numeric columns, missing cells filled with the training median, then scaled; for every column with
    a missing cell in the training split, 1 where this row's is missing; the category one-hot, all zeros for a number
    the training split does not have. "category" may be absent.

    Attributes:
        scale: "standard": less the mean, over the standard deviation. "quantile": each value's rank among the training
            rows', turned into a standard normal's value of that rank; outliers lose their weight, and values beyond the
            training range meet its ends.
        quantiles: how finely ranks are measured.
    """

    scale: Literal["standard", "quantile"] = "standard"
    quantiles: Count = 1000

    def fit(self, train: Arrays) -> Statistics:
        numeric = np.asarray(train["inputs"]["numeric"], np.float64)
        category = train["inputs"].get("category")
        classes = np.asarray(0 if category is None else int(np.max(category)) + 1)
        absent = np.isnan(numeric)
        incomplete = np.flatnonzero(absent.any(0))
        known = ~absent.all(0)
        median = np.zeros(numeric.shape[1])
        median[known] = np.nanmedian(numeric[:, known], axis=0)
        filled = np.where(absent, median[None], numeric)
        return {"median": median, "incomplete": incomplete, "classes": classes, **self._fit_scale(filled)}

    def _fit_scale(self, filled: np.ndarray) -> Statistics:
        if self.scale == "standard":
            deviation = filled.std(0)
            return {"shift": filled.mean(0), "factor": 1 / np.where(deviation > 0, deviation, 1)}
        count = min(self.quantiles, len(filled))
        ranks = ((np.arange(count) + 0.5) / count).astype(np.float32)  # inside (0, 1): no value becomes infinite
        return {"ranks": ranks, "quantiles": np.quantile(filled, ranks, axis=0).astype(np.float32).T}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        x = batch["inputs"]["numeric"].astype(jnp.float32)
        missing = jnp.isnan(x)
        filled = jnp.where(missing, statistics["median"].astype(np.float32)[None], x)
        columns = [self._scale(filled, statistics), missing[:, statistics["incomplete"]].astype(jnp.float32)]
        if "category" in batch["inputs"]:
            columns.append(jax.nn.one_hot(batch["inputs"]["category"], int(statistics["classes"])))
        return {**batch, "inputs": jnp.concatenate(columns, axis=1)}

    def _scale(self, x: Array, statistics: Statistics) -> Array:
        if self.scale == "standard":
            shift, factor = (statistics[name].astype(np.float32)[None] for name in ("shift", "factor"))
            return (x - shift) * factor
        ranks = statistics["ranks"]

        def rank(x: Array, at: Array) -> Array:
            # Equal quantiles, as of a column with a cap, stand for the middle of their ranks: the mean of both
            # directions.
            return (jnp.interp(x, at, ranks) - jnp.interp(-x, -at[::-1], -ranks[::-1])) / 2

        quantiles = jnp.asarray(statistics["quantiles"])
        return jax.scipy.special.ndtri(jax.vmap(rank, in_axes=(1, 0), out_axes=1)(x, quantiles))


def channel_statistics(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel (last axis), float64 [C].

    In blocks of rows, so that a split of bytes is never held as floats; around the first row, so that a mean far from
    zero costs no digits.
    """
    channels = inputs.shape[-1]
    origin = inputs[:1].reshape(-1, channels).astype(np.float64).mean(0)
    total, squares, count = np.zeros(channels), np.zeros(channels), inputs.size // channels
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        block = inputs[start : start + _ROWS_AT_ONCE].reshape(-1, channels).astype(np.float64) - origin
        total += block.sum(0)
        squares += np.einsum("nc,nc->c", block, block)
    mean = total / count
    return origin + mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
