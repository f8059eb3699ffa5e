"""Preparation of batches: each op is fitted to the training split once, then a pure function of a batch and its statistics.

The ops are traced inside the compiled step, on the device, for a whole batch at a time. What an op does not name
in its batch ("mask", ids) is handed through. The random ones are in `fdl.data.augment` and can be named from here as
well.

Legend: B batch, C channels, F features, K categories.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from fdl.data.augment import Cutmix, Cutout, Flip, Mixup, Noise, RandomWindow, Shift
from fdl.data.class_ops import ClassWeights
from fdl.data.columns import is_column
from fdl.data.pictures import pictures
from fdl.data.series_ops import PictureSequence, ScaleSeries
from fdl.data.splits import Op, Statistics
from fdl.data.table_ops import ScaleTargets, Tabular, unscale_outputs
from fdl.types import Arrays, Batch, Draw, UserError, Whole

__all__ = [
    "ClassWeights",
    "Cutmix",
    "Cutout",
    "Flip",
    "Mixup",
    "NextToken",
    "Noise",
    "Pad",
    "PictureSequence",
    "RandomWindow",
    "ScaleSeries",
    "ScaleTargets",
    "Shift",
    "Standardize",
    "Tabular",
    "channel_statistics",
    "unscale_outputs",
]  # fmt: skip

_ROWS_AT_ONCE = 4096
_SAMPLE = 1024
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Standardize(Op):
    """Inputs [B, ..., C] of any type to float32, shifted and scaled.

    Attributes:
        scale: "mean_std": by each channel's mean and standard deviation over the training split; "unit": divided by 255
            (of wider types, whose training rows hold more, by 65,535); "imagenet": by the mean and deviation of ImageNet's red,
            green and blue (0 to 255), for its pictures and for nets trained on them; "signed": (x - 127) / 128, about -1 to 1,
            as EfficientNet-Lite was trained; "none": only converted.
    """

    scale: Literal["mean_std", "unit", "imagenet", "signed", "none"] = "mean_std"

    def fit(self, train: Arrays) -> Statistics:
        inputs = train["inputs"]
        if inputs.ndim == 3 and np.issubdtype(inputs.dtype, np.integer) and self.scale != "none":
            # Or each column of pixels would be taken for a channel.
            raise UserError(
                f"pictures need an axis of channels: the inputs are {inputs.dtype} {list(inputs.shape)}, expected "
                f"{[*inputs.shape, 1]}; return inputs[..., None] from the source"
            )
        channels = inputs.shape[-1]
        shift, factor = np.zeros(channels), np.ones(channels)
        if self.scale == "unit":
            factor = np.full(channels, 1 / _largest(inputs))
        elif self.scale == "imagenet":
            if channels != 3:
                raise UserError(f'scale "imagenet" is for images of 3 channels, not {channels}: set it to mean_std')
            shift, factor = 255 * np.array(_IMAGENET_MEAN), 1 / (255 * np.array(_IMAGENET_DEVIATION))
        elif self.scale == "signed":
            shift, factor = np.full(channels, 127.0), np.full(channels, 1 / 128)
        elif self.scale == "mean_std":
            # Of rows that are not in memory a sample must do: some at equal distances.
            every = -(-len(inputs) // _SAMPLE) if is_column(inputs) else 1
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
        x = pictures(batch["inputs"], self)
        around = ((0, 0), (self.pixels, self.pixels), (self.pixels, self.pixels), (0, 0))
        return {**batch, "inputs": jnp.pad(x, around, constant_values=jnp.asarray(self.value, x.dtype))}


@dataclasses.dataclass(frozen=True)
class NextToken(Op):
    """Rows of tokens [B, T + 1] to inputs [B, T] and, one place on, targets [B, T], both int32."""

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        tokens = batch["inputs"].astype(jnp.int32)
        return {**batch, "inputs": tokens[:, :-1], "targets": tokens[:, 1:]}


def _largest(inputs: Any) -> int:
    """Return the value of "white" in pictures of an integer type: 255, or 65,535.

    Raises:
        UserError: the inputs are no such pictures.
    """
    if not np.issubdtype(inputs.dtype, np.integer):
        raise UserError(f'scale "unit" is for whole numbers, not {inputs.dtype}: set it to mean_std')
    if inputs.dtype in (np.uint8, np.uint16):
        return int(np.iinfo(inputs.dtype).max)
    held = np.asarray(inputs)
    low, high = int(held.min()), int(held.max())
    if low < 0 or high > 65_535:
        raise UserError(
            f'scale "unit" is for pictures of 0 to 255 or 65,535, these hold {low} to {high}: set it to mean_std'
        )
    return 255 if high <= 255 else 65_535


def channel_statistics(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of each channel (last axis), float64 [C].

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
