"""Random changes to training batches: ops for `Data.augment`. Given no draw they change nothing.

Like every op they are traced inside the compiled step, on the device, for a whole batch at a time, and hand through
what they do not name ("mask", ids). Images keep their type (uint8 stays uint8) unless it says otherwise.

Legend: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.color import Brightness as Brightness
from fdl.data.color import ColorJitter as ColorJitter
from fdl.data.color import Contrast as Contrast
from fdl.data.geometry import AlternatingFlip as AlternatingFlip
from fdl.data.geometry import RandomResizedCrop as RandomResizedCrop
from fdl.data.geometry import Rotate as Rotate
from fdl.data.geometry import Translate as Translate
from fdl.data.geometry import Zoom as Zoom
from fdl.data.pictures import between, per_image, pictures, rounded, white, whole
from fdl.data.rand_augment import RandAugment as RandAugment
from fdl.data.splits import Augmentation, Op, Statistics
from fdl.types import Array, Arrays, Batch, Count, Draw, Fraction, NonNegative, Positive, Probability, Whole


@dataclasses.dataclass(frozen=True)
class Flip(Augmentation):
    """Images [B, H, W, C] mirrored left to right, each with `probability`."""

    probability: Probability = 0.5

    def change(self, x: Array, draw: Draw) -> Array:
        return jnp.where(per_image(draw(()) < self.probability), pictures(x, self)[:, :, ::-1], x)


@dataclasses.dataclass(frozen=True)
class Shift(Augmentation):
    """Images [B, H, W, C] moved by up to `pixels` down or up and right or left; what moves in is `fill`, or (None) the border
    reflected.

    Selected among a few shifted copies of the batch, rows first and then columns: no gather, which CPUs are slow at.
    Every whole number of pixels is as likely as any other, in each direction independently.
    """

    pixels: Whole = 2
    fill: float | None = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        x, offsets = pictures(x, self), whole(draw((2,)), 2 * self.pixels + 1) - self.pixels
        for axis in (1, 2):
            offset, moved = per_image(offsets[:, axis - 1]), x
            for by in range(-self.pixels, self.pixels + 1):
                if by:
                    moved = jnp.where(offset == by, _moved(x, by, axis, self.fill), moved)
            x = moved
        return x


@dataclasses.dataclass(frozen=True)
class Cutout(Augmentation):
    """A square of `size` pixels set to `fill` in images [B, H, W, C] (DeVries and Taylor 2017,
    https://arxiv.org/abs/1708.04552).

    Its centre is any pixel, so that part of the square may lie outside the image.
    """

    size: Count = 8
    probability: Probability = 1.0
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        inside = _square(pictures(x, self), draw((2,)), jnp.full(x.shape[0], self.size))
        hit = per_image(draw(()) < self.probability)
        return jnp.where(inside & hit, jnp.asarray(self.fill, x.dtype), x)


@dataclasses.dataclass(frozen=True)
class RandomErasing(Augmentation):
    """A rectangle of images [B, H, W, C] filled with noise, each with `probability` (Zhong et al. 2020,
    https://arxiv.org/abs/1708.04896).

    The rectangle has a share of [smallest, largest) of the area and an aspect ratio of [1 / stretch, stretch), equally
    likely by its logarithm, and lies anywhere inside; a side longer than the image is cut to it. Every pixel and channel
    of it is uniform between black and white.
    """

    smallest: Fraction = 0.02
    largest: Fraction = 0.4
    stretch: Positive = 10 / 3
    probability: Probability = 0.5

    def change(self, x: Array, draw: Draw) -> Array:
        uniform, (height, width) = draw((5,)), pictures(x, self).shape[1:3]
        area = between(uniform[:, 0], self.smallest, self.largest) * (height * width)
        ratio = jnp.exp(between(uniform[:, 1], -math.log(self.stretch), math.log(self.stretch)))
        inside = []
        for axis, (size, side) in enumerate(((height, jnp.sqrt(area * ratio)), (width, jnp.sqrt(area / ratio)))):
            side = jnp.clip(jnp.round(side), 1, size).astype(jnp.int32)
            inside.append(_within(whole(uniform[:, 2 + axis], size - side + 1), side, size))
        hit = per_image(uniform[:, 4] < self.probability)
        noise = rounded(white(x.dtype) * draw(x.shape[1:]), x.dtype)
        return jnp.where(_rectangle(*inside) & hit, noise, x)


@dataclasses.dataclass(frozen=True)
class Noise(Augmentation):
    """Normal noise added to the inputs, in their own unit (0 to 255 before Standardize); the result is float32."""

    deviation: NonNegative = 10.0

    def change(self, x: Array, draw: Draw) -> Array:
        # The ends of [0, 1) would be infinitely far out.
        uniform = jnp.clip(draw(x.shape[1:]), 1e-7, 1 - 1e-7)
        return x.astype(jnp.float32) + self.deviation * jax.scipy.special.ndtri(uniform)


@dataclasses.dataclass(frozen=True)
class Mixup(Op):
    """Each example mixed with its neighbour, inputs and labels alike (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412).

    With l ~ Beta(alpha, alpha): x <- l x + (1 - l) x', y <- l y + (1 - l) y', where y is one-hot. Neighbours are the
    examples at places 2i and 2i + 1 of the shuffled batch, so that a pair is on one device; the last of an odd batch
    stays as it is.

    Attributes:
        alpha: 1 mixes by any share alike, small ones mostly little.
        classes: number of classes; 0 counts them in the training split.
    """

    alpha: Positive = 0.2
    classes: Whole = 0

    def fit(self, train: Arrays) -> Statistics:
        return _mixing(train, self.classes, self.alpha)

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        share, y = _share_kept(draw, statistics), _one_hot(batch["targets"], int(statistics["classes"]))
        return {**batch, "inputs": _mixed(batch["inputs"].astype(jnp.float32), share), "targets": _mixed(y, share)}


@dataclasses.dataclass(frozen=True)
class Cutmix(Op):
    """A square of the neighbour's image pasted in, labels mixed by area (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899).

    Images [B, H, W, C]. The square's area is 1 - l of the image's, l ~ Beta(alpha, alpha), before what lies outside is
    cut off; the labels follow the part inside. Neighbours as in `Mixup`.
    """

    alpha: Positive = 1.0
    classes: Whole = 0

    def fit(self, train: Arrays) -> Statistics:
        return _mixing(train, self.classes, self.alpha)

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x, y = pictures(batch["inputs"], self), _one_hot(batch["targets"], int(statistics["classes"]))
        share = _share_kept(draw, statistics)
        inside = _square(x, draw((2,)), jnp.sqrt((1 - share) * x.shape[1] * x.shape[2]))
        kept = 1 - inside.astype(jnp.float32).mean((1, 2, 3))
        return {**batch, "inputs": jnp.where(inside, _neighbour(x), x), "targets": _mixed(y, kept)}


@dataclasses.dataclass(frozen=True)
class RandomWindow(Augmentation):
    """Of rows of tokens [B, S], S even, a window [B, S / 2 + 1] at a random offset below S / 2.

    With rows that overlap by half (`fdl.data.formats.characters.chunks`), every window of the text is as likely as any other.
    """

    def change(self, x: Array, draw: Draw) -> Array:
        half = x.shape[1] // 2
        starts = whole(draw(()), half)
        return jax.vmap(lambda row, start: jax.lax.dynamic_slice(row, (start,), (half + 1,)))(x, starts)


def _moved(x: Array, by: int, axis: int, fill: float | None) -> Array:
    """Move `x` by `by` pixels along the axis, keeping its shape; what moves in is `fill`, or (None) `x` reflected."""
    size = x.shape[axis]
    by = max(-size, min(size, by))
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(by, 0), max(-by, 0))
    if fill is None:
        padded = jnp.pad(x, widths, mode="reflect")
    else:
        padded = jnp.pad(x, widths, constant_values=jnp.asarray(fill, x.dtype))
    return jax.lax.slice_in_dim(padded, max(-by, 0), max(-by, 0) + size, axis=axis)


def _square(x: Array, uniform_Bx2: Array, side_B: Array) -> Array:
    """Return [B, H, W, 1]: whether a pixel is within the square around a random one."""
    inside = []
    for axis in (1, 2):
        centre = whole(uniform_Bx2[:, axis - 1], x.shape[axis])
        inside.append(_within(centre - side_B // 2, side_B, x.shape[axis]))
    return _rectangle(*inside)


def _within(start_B: Array, side_B: Array, size: int) -> Array:
    """Return [B, size]: whether a place is among the `side` ones from `start` on."""
    place = jnp.arange(size)[None]
    return (place >= start_B[:, None]) & (place < (start_B + side_B)[:, None])


def _rectangle(rows_BxH: Array, columns_BxW: Array) -> Array:
    """Return [B, H, W, 1]: whether a pixel is in one of the rows and one of the columns."""
    return (rows_BxH[:, :, None] & columns_BxW[:, None, :])[..., None]


def _neighbour(x: Array) -> Array:
    """Swap examples 2i and 2i + 1; the last of an odd batch is its own neighbour."""
    even = x.shape[0] // 2 * 2
    swapped = x[:even].reshape(even // 2, 2, *x.shape[1:])[:, ::-1].reshape(even, *x.shape[1:])
    return jnp.concatenate([swapped, x[even:]]) if even < x.shape[0] else swapped


def _mixed(x: Array, share_B: Array) -> Array:
    share = share_B.reshape(-1, *[1] * (x.ndim - 1))
    return share * x + (1 - share) * _neighbour(x)


def _mixing(train: Arrays, classes: int, alpha: float) -> Statistics:
    """Return the number of classes (counted where it is 0) and how shares are distributed, for `Mixup` and `Cutmix`."""
    return {
        "classes": np.asarray(classes or int(np.max(train["targets"])) + 1),
        "beta": _beta_quantiles(alpha),
    }


def _share_kept(draw: Draw, statistics: Statistics) -> Array:
    """Draw l ~ Beta(alpha, alpha) for each example, [B]."""
    beta = statistics["beta"]
    return jnp.interp(draw(()), jnp.linspace(0, 1, len(beta)), beta)


def _one_hot(targets: Array, classes: int) -> Array:
    return targets if jnp.issubdtype(targets.dtype, jnp.floating) else jax.nn.one_hot(targets, classes)


def _beta_quantiles(alpha: float) -> np.ndarray:
    """Compute quantiles of Beta(alpha, alpha), to turn one uniform number into one of that distribution."""
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, np.linspace(0, 1, 1025)).astype(np.float32)
