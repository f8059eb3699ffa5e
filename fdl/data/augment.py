"""Random changes to training batches: ops for `Data.augment`. Given no draw they change nothing.

Like every op they are traced inside the compiled step, on the device, for a whole batch at a time, and hand through
what they do not name ("mask", ids). Images keep their type (uint8 stays uint8) unless it says otherwise.

Legend: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Augmentation, Op, Statistics
from fdl.types import Array, Arrays, Batch, Count, Draw, NonNegative, Positive, Probability, UserError, Whole, count_examples


@dataclasses.dataclass(frozen=True)
class Flip(Augmentation):
    """Images [B, H, W, C] mirrored left to right, each with `probability`."""

    probability: Probability = 0.5

    def change(self, x: Array, draw: Draw) -> Array:
        return jnp.where(_per_image(draw(()) < self.probability), pictures(x, self)[:, :, ::-1], x)


@dataclasses.dataclass(frozen=True)
class AlternatingFlip(Op):
    """Images [B, H, W, C] mirrored in every second epoch: an example is seen both ways in any two (Jordan 2024,
    https://arxiv.org/abs/2404.00498, section 3.6).

    Which half of the examples begins mirrored is decided by a hash of their pixels.
    """

    def fit(self, train: Arrays) -> Statistics:
        return {"examples": np.asarray(count_examples(train), np.uint32)}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x = pictures(batch["inputs"], self)
        epoch = batch.get("seen", np.zeros(len(x), np.uint32)) // np.uint32(statistics["examples"])
        odd = (epoch + _hash(x)) % 2 == 1
        return {**batch, "inputs": jnp.where(_per_image(odd), x[:, :, ::-1], x)}


@dataclasses.dataclass(frozen=True)
class Shift(Augmentation):
    """Images [B, H, W, C] moved by up to `pixels` down or up and right or left; what moves in is `fill`.

    Selected among a few shifted copies of the batch, rows first and then columns: no gather, which CPUs are slow at.
    Every whole number of pixels is as likely as any other, in each direction independently.
    """

    pixels: Whole = 2
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        x, offsets = pictures(x, self), _whole(draw((2,)), 2 * self.pixels + 1) - self.pixels
        for axis in (1, 2):
            offset, moved = _per_image(offsets[:, axis - 1]), x
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
        hit = _per_image(draw(()) < self.probability)
        return jnp.where(inside & hit, jnp.asarray(self.fill, x.dtype), x)


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
        starts = _whole(draw(()), half)
        return jax.vmap(lambda row, start: jax.lax.dynamic_slice(row, (start,), (half + 1,)))(x, starts)


def pictures(x: Array, op: Op) -> Array:
    """Return `x` if it is a batch of pictures.

    Raises:
        UserError: it has no axes [B, H, W, C].
    """
    if getattr(x, "ndim", 0) != 4:
        shape = f"{x.dtype} {['B', *x.shape[1:]]}" if hasattr(x, "shape") else type(x).__name__
        raise UserError(f"{type(op).__name__} is for pictures [B, H, W, C], the inputs are {shape}")
    return x


def _hash(x: Array) -> Array:
    """Hash the pixels of each picture, uint32 [B]: sums with pseudo-random weights, of which high bits are kept."""
    whole = x.astype(jnp.uint32) if jnp.issubdtype(x.dtype, jnp.integer) else jax.lax.bitcast_convert_type(
        x.astype(jnp.float32), jnp.uint32
    )  # fmt: skip
    weights = np.random.Generator(np.random.Philox(0)).integers(0, 2**32, x.shape[1:], np.uint32)
    return (whole * weights).sum((1, 2, 3), dtype=jnp.uint32) >> 16


def _per_image(values_B: Array) -> Array:
    return values_B[:, None, None, None]


def _whole(uniform: Array, count: int) -> Array:
    """Turn uniform numbers in [0, 1) into whole numbers 0 ... count - 1, each equally likely."""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)  # the product may round up to count


def _moved(x: Array, by: int, axis: int, fill: float) -> Array:
    """Move `x` by `by` pixels along the axis, keeping its shape."""
    size = x.shape[axis]
    by = max(-size, min(size, by))
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(by, 0), max(-by, 0))
    padded = jnp.pad(x, widths, constant_values=jnp.asarray(fill, x.dtype))
    return jax.lax.slice_in_dim(padded, max(-by, 0), max(-by, 0) + size, axis=axis)


def _square(x: Array, uniform_Bx2: Array, side_B: Array) -> Array:
    """Return [B, H, W, 1]: whether a pixel is within the square around a random one."""
    inside = []
    for axis in (1, 2):
        centre = _whole(uniform_Bx2[:, axis - 1], x.shape[axis])
        start = centre - side_B // 2
        place = jnp.arange(x.shape[axis])[None]
        inside.append((place >= start[:, None]) & (place < (start + side_B)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[..., None]


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
