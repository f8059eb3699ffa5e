"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719), for a whole batch at once.

Each example draws its own operations. To compute all of them for every example would be wasteful, so they are computed by
kind: what moves pixels is one affine map, and what looks at one pixel's value alone is one table of 256 values; an
example that drew another kind has the identity there.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.color import blended, grey, mean_grey
from fdl.data.geometry import rotation
from fdl.data.pictures import affine, pictures, whole
from fdl.data.splits import Augmentation
from fdl.types import Array, Count, Draw, Fraction, UserError

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""Those of torchvision's RandAugment, with its ranges."""
_SHEAR, _TRANSLATE, _DEGREES, _BLEND, _BITS = 0.3, 150 / 331, 30.0, 0.9, 4
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's ImageFilter.SMOOTH."""
_VALUES = np.arange(256)[None, None]


@dataclasses.dataclass(frozen=True)
class RandAugment(Augmentation):
    """`number` random operations of OPERATIONS after one another on uint8 images [B, H, W, C].

    Attributes:
        number: operations for each image, each equally likely.
        strength: of the operations' ranges: 0 changes little, 1 turns by 30 degrees. torchvision's magnitude 9 of 31 is 0.3.
        fill: what moves in.
    """

    number: Count = 2
    strength: Fraction = 0.3
    fill: float = 0.0

    def change(self, x: Array, draw: Draw) -> Array:
        if pictures(x, self).dtype != jnp.uint8:
            raise UserError(f"RandAugment is for uint8 images, the inputs are {x.dtype}: leave it out")
        for _ in range(self.number):
            uniform = draw((2,))
            sign = jnp.where(uniform[:, 1] < 0.5, -1.0, 1.0)
            x = apply_operation(x, whole(uniform[:, 0], len(OPERATIONS)), sign * self.strength, self.fill)
        return x


def apply_operation(x: Array, chosen_B: Array, level_B: Array, fill: float = 0.0) -> Array:
    """Apply to each image the operation OPERATIONS[chosen] at a signed level of [-1, 1] (unsigned for posterize, solarize)."""
    is_ = {name: chosen_B == number for number, name in enumerate(OPERATIONS)}
    x = _move(x, is_, level_B, fill)
    factor = 1 + _BLEND * level_B
    plains = {"color": grey(x), "sharpness": _smooth(x), "contrast": mean_grey(x), "brightness": jnp.zeros(())}
    for name, plain in plains.items():
        x = blended(jnp.round(plain), x, jnp.where(is_[name], factor, 1.0))
    return _look_up(x, is_, jnp.abs(level_B))


def _move(x: Array, is_: dict[str, Array], level_B: Array, fill: float) -> Array:
    size = np.array([x.shape[1:3]], np.float32)
    at = {name: jnp.where(is_[name], level_B, 0.0) for name in OPERATIONS[1:6]}
    shear = jnp.zeros((len(x), 2, 2)).at[:, 1, 0].set(at["shear_x"]).at[:, 0, 1].set(at["shear_y"])
    shift = jnp.stack([at["translate_y"], at["translate_x"]], -1) * _TRANSLATE * size
    return affine(x, rotation(_DEGREES * at["rotate"]) + _SHEAR * shear, shift, fill)


def _smooth(x: Array) -> Array:
    """Blur pictures by Pillow's SMOOTH filter; the outermost pixels stay."""
    y, (height, width) = x.astype(jnp.float32), x.shape[1:3]
    inner = sum(_SMOOTH[i, j] * y[:, i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    return y.at[:, 1:-1, 1:-1].set(inner)


def _look_up(x: Array, is_: dict[str, Array], level_B: Array) -> Array:
    """Replace each value by the entry of its example's and channel's table [B, C, 256]."""
    values = _VALUES
    bits = 8 - jnp.round(_BITS * level_B).astype(jnp.int32)[:, None, None]
    posterized = values & ~((1 << (8 - bits)) - 1)
    solarized = jnp.where(values < 255 * (1 - level_B)[:, None, None], values, 255 - values)
    counts = jax.vmap(jax.vmap(lambda v: jnp.zeros(256, jnp.int32).at[v].add(1), -1))(
        x.reshape(len(x), -1, x.shape[-1])
    )
    table = jnp.broadcast_to(values, counts.shape)
    for name, made in (
        ("posterize", posterized), ("solarize", solarized), ("autocontrast", _stretch(counts)), ("equalize", _flatten(counts))
    ):  # fmt: skip
        table = jnp.where(is_[name][:, None, None], made, table)
    flat = x.reshape(len(x), -1, x.shape[-1]).astype(jnp.int32)
    looked_up = jnp.take_along_axis(table.swapaxes(1, 2), flat, axis=1, mode="promise_in_bounds")
    return looked_up.reshape(x.shape).astype(x.dtype)


def _stretch(counts: Array) -> Array:
    """Return the tables [B, C, 256] that stretch the values present to 0 ... 255 (ImageOps.autocontrast)."""
    low, high = (counts > 0).argmax(-1), 255 - (counts > 0)[..., ::-1].argmax(-1)
    scale = 255.0 / jnp.maximum(high - low, 1)
    table = jnp.floor((_VALUES - low[..., None]) * scale[..., None]).astype(jnp.int32)
    return jnp.where((high > low)[..., None], jnp.clip(table, 0, 255), _VALUES)


def _flatten(counts: Array) -> Array:
    """Return the tables [B, C, 256] that make all values about equally common (ImageOps.equalize)."""
    last = jnp.take_along_axis(counts, (255 - (counts > 0)[..., ::-1].argmax(-1))[..., None], -1)
    step = (counts.sum(-1, keepdims=True) - last) // 255
    before = jnp.cumsum(counts, -1) - counts
    table = jnp.clip((step // 2 + before) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table, _VALUES)
