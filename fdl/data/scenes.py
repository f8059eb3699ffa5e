"""Ops for pictures whose targets lie in them: label pictures [B, H, W] change with them.

Legend: B batch, H height, W width, C channels, K classes.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.formats.masks import VOID
from fdl.data.pictures import per_image, pictures
from fdl.data.splits import Augmentation, Op, Statistics
from fdl.types import Array, Arrays, Batch, Draw, Fraction, NonNegative, Positive, Probability


@dataclasses.dataclass(frozen=True)
class FlipMasks(Op):
    """Images [B, H, W, C] and their labels [B, H, W] mirrored left to right together, each pair with `probability`."""

    probability: Probability = 0.5

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x, y, hit = pictures(batch["inputs"], self), batch["targets"], draw(()) < self.probability
        flipped = jnp.where(per_image(hit), x[:, :, ::-1], x)
        return {**batch, "inputs": flipped, "targets": jnp.where(hit[:, None, None], y[:, :, ::-1], y)}


@dataclasses.dataclass(frozen=True)
class ScaleMasks(Op):
    """Images and their labels enlarged or reduced together about a random place, their size kept.

    The logarithm of the scale is uniform. Labels are not mixed; what comes from outside is black, and void.

    Attributes:
        least, most: the scale.
    """

    least: Positive = 0.75
    most: Positive = 1.5

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x, y = pictures(batch["inputs"], self), batch["targets"]
        scale = self.least * (self.most / self.least) ** draw(())
        places = draw((2,))
        rows, columns = (_sources(x.shape[axis], scale, places[:, axis - 1]) for axis in (1, 2))
        x = _mix_rows(_mix_rows(x.astype(jnp.float32), rows, 1), columns, 2)
        y = _pick_rows(_pick_rows(y, rows, 1), columns, 2)
        return {**batch, "inputs": x, "targets": y}


def _sources(size: int, scale: Array, place: Array) -> Array:
    """Return where each of `size` pixels comes from, [B, size], in pixels of the picture as it was.

    The part that is seen begins at `place` [B] (0 to 1) of all places where it may.
    """
    first = (size - size / scale) * place
    return first[:, None] + (jnp.arange(size)[None] + 0.5) / scale[:, None] - 0.5


def _mix_rows(x: Array, sources: Array, axis: int) -> Array:
    """Interpolate linearly along an axis, as a product with a matrix for each picture: CPUs gather slowly."""
    taps = jnp.arange(x.shape[axis])[None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(sources[:, :, None] - taps))  # [B, new, old]
    return jnp.einsum("bnh,bhwc->bnwc" if axis == 1 else "bnw,bhwc->bhnc", weights, x)


def _pick_rows(y: Array, sources: Array, axis: int) -> Array:
    """Take the nearest label along an axis, VOID from outside."""
    nearest = jnp.round(sources).astype(jnp.int32)
    inside = (nearest >= 0) & (nearest < y.shape[axis])
    taken = jax.vmap(lambda labels, at: jnp.take(labels, at, axis - 1, mode="clip"))(y, nearest)
    return jnp.where(inside[:, :, None] if axis == 1 else inside[:, None, :], taken, jnp.asarray(VOID, y.dtype))


@dataclasses.dataclass(frozen=True)
class JitterColours(Augmentation):
    """Images [B, H, W, C] of 0 to 255 made brighter or darker, and each of their colours stronger or weaker.

    Attributes:
        brightness: what is added, at most, as a share of white.
        contrast: the share by which a colour is multiplied more or less, at most.
    """

    brightness: Fraction = 0.15
    contrast: Fraction = 0.2

    def change(self, x: Array, draw: Draw) -> Array:
        x = pictures(x, self).astype(jnp.float32)
        factor = 1 + self.contrast * (2 * draw((1, 1, x.shape[-1])) - 1)
        shift = 255 * self.brightness * (2 * draw((1, 1, 1)) - 1)
        return jnp.clip(x * factor + shift, 0, 255)


@dataclasses.dataclass(frozen=True)
class PixelWeights(Op):
    """A weight for each pixel's loss, "pixel_weights" [B, H, W]: rare classes count more, void ones nothing.

    A class with the share s of the training pixels weighs s ^ -power, all divided so that the mean training pixel weighs 1.

    Attributes:
        power: 0 weighs all classes' pixels alike, 1 weighs all classes alike.
    """

    power: NonNegative = 0.5

    def fit(self, train: Arrays) -> Statistics:
        counts = np.bincount(np.asarray(train["targets"]).ravel(), minlength=VOID + 1).astype(np.float64)
        counts[VOID] = 0
        shares = counts / counts.sum()
        weights = np.where(counts > 0, np.where(counts > 0, shares, 1) ** -self.power, 0)
        return {"weights": (weights / math.fsum(shares * weights)).astype(np.float32)}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if "targets" not in batch:  # a user's own pictures, to be predicted
            return batch
        weights = jnp.asarray(statistics["weights"])
        return {**batch, "pixel_weights": weights[batch["targets"].astype(jnp.int32)]}
