"""Augmentations that move the pixels of pictures [B, H, W, C] to other places; each example by numbers of its own.

All but the flips read between pixels by one bilinear gather (`fdl.data.pictures.sample`).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.pictures import affine, between, per_image, pictures
from fdl.data.splits import Augmentation, Op, Statistics
from fdl.types import Array, Arrays, Batch, Draw, Fraction, NonNegative, Positive, count_examples

_EYE = np.eye(2, dtype=np.float32)[None]


@dataclasses.dataclass(frozen=True)
class AlternatingFlip(Op):
    """Images mirrored in every second epoch, so that any two epochs show an example both ways (Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.6).

    A hash of its pixels decides whether an example begins mirrored.
    """

    def fit(self, train: Arrays) -> Statistics:
        return {"examples": np.asarray(count_examples(train), np.uint32)}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x = pictures(batch["inputs"], self)
        epoch = batch.get("seen", np.zeros(len(x), np.uint32)) // np.uint32(statistics["examples"])
        return {**batch, "inputs": jnp.where(per_image((epoch + _hash(x)) % 2 == 1), x[:, :, ::-1], x)}


def _hash(x: Array) -> Array:
    """Hash the pixels of each picture, uint32 [B]: sums with pseudo-random weights, of which the high bits are kept."""
    whole = x if jnp.issubdtype(x.dtype, jnp.integer) else jax.lax.bitcast_convert_type(jnp.float32(x), jnp.uint32)
    weights = np.random.Generator(np.random.Philox(0)).integers(0, 2**32, x.shape[1:], np.uint32)
    return (whole.astype(jnp.uint32) * weights[None]).sum((1, 2, 3), dtype=jnp.uint32) >> 16


@dataclasses.dataclass(frozen=True)
class Rotate(Augmentation):
    """Images turned about their centre by up to `degrees` either way; what turns in is `fill`."""

    degrees: NonNegative = 15.0
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        angle = between(draw(()), -self.degrees, self.degrees)
        return affine(pictures(x, self), rotation(angle), jnp.zeros((len(x), 2)), self.fill)


@dataclasses.dataclass(frozen=True)
class Zoom(Augmentation):
    """Images magnified about their centre by a factor of [low, high), all magnifications equally likely by their logarithm."""

    low: Positive = 0.8
    high: Positive = 1.25
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        factor = jnp.exp(between(draw(()), math.log(self.low), math.log(self.high)))
        return affine(pictures(x, self), jnp.asarray(_EYE) / factor[:, None, None], jnp.zeros((len(x), 2)), self.fill)


@dataclasses.dataclass(frozen=True)
class Translate(Augmentation):
    """Images moved by up to `share` of their height and of their width, parts of pixels too; what moves in is `fill`.

    `Shift` moves by whole pixels, without a gather.
    """

    share: Fraction = 0.1
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        shift = between(draw((2,)), -self.share, self.share) * _sides(pictures(x, self))
        return affine(x, jnp.broadcast_to(_EYE, (len(x), 2, 2)), shift, self.fill)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Augmentation):
    """A random rectangle of each image, stretched to the image's size (Szegedy et al. 2015,
    https://arxiv.org/abs/1409.4842, section 6).

    The rectangle has a share of [smallest, largest) of the area and an aspect ratio (width / height, of the image's own)
    of [1 / stretch, stretch), equally likely by its logarithm; a side longer than the image is cut to it. Pictures of a
    folder are cropped in their file's own resolution instead: `folder:PATH,crop=...`.
    """

    smallest: Fraction = 0.25
    largest: Fraction = 1.0
    stretch: Positive = 4 / 3

    def change(self, x: Array, draw: Draw) -> Array:
        uniform = draw((4,))
        area = between(uniform[:, 0], self.smallest, self.largest)
        ratio = jnp.exp(between(uniform[:, 1], -math.log(self.stretch), math.log(self.stretch)))
        sides = jnp.minimum(jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], -1), 1)  # shares of [H, W]
        # The crop's centre, from the image's, is anywhere where the crop is inside.
        shift = between(uniform[:, 2:], -0.5, 0.5) * (1 - sides) * _sides(pictures(x, self))
        return affine(x, sides[:, :, None] * _EYE, shift, None)


def _sides(x: Array) -> np.ndarray:
    """Return height and width of pictures, float32 [1, 2]."""
    return np.array([x.shape[1:3]], np.float32)


def rotation(degrees_B: Array) -> Array:
    """Return the matrices [B, 2, 2] that turn the picture counterclockwise, for `affine`."""
    angle = jnp.deg2rad(degrees_B)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
