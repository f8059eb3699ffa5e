"""Augmentations that change the colours of pictures [B, H, W, C] in place; each example by numbers of its own.

Pictures are uint8, or floats with black at 0 and white at 1: use them before `Standardize`. The equations are those of
Pillow's ImageEnhance and of torchvision: a picture is blended with a plainer one, or away from it where the factor is above 1.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from fdl.data.pictures import between, per_image, pictures, rounded, white
from fdl.data.splits import Augmentation
from fdl.types import Array, Draw, Fraction, NonNegative, UserError

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue are: ITU-R BT.601."""


@dataclasses.dataclass(frozen=True)
class Brightness(Augmentation):
    """Images multiplied by 1 - amount to 1 + amount."""

    amount: NonNegative = 0.2

    def change(self, x: Array, draw: Draw) -> Array:
        return blended(jnp.zeros((), x.dtype), pictures(x, self), _factor(draw, self.amount))


@dataclasses.dataclass(frozen=True)
class Contrast(Augmentation):
    """Each pixel's distance to the image's mean grey multiplied by 1 - amount to 1 + amount."""

    amount: NonNegative = 0.2

    def change(self, x: Array, draw: Draw) -> Array:
        return blended(mean_grey(pictures(x, self)), x, _factor(draw, self.amount))


@dataclasses.dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue of colour images changed in this order.

    Attributes:
        brightness, contrast, saturation: each factor is of [1 - value, 1 + value).
        hue: the colour wheel is turned by up to this share of a whole turn, either way.
    """

    brightness: NonNegative = 0.4
    contrast: NonNegative = 0.4
    saturation: NonNegative = 0.4
    hue: Fraction = 0.1

    def change(self, x: Array, draw: Draw) -> Array:
        if pictures(x, self).shape[-1] != 3:
            raise UserError(f"ColorJitter is for images of 3 channels, not {x.shape[-1]}: use Brightness and Contrast")
        y = x.astype(jnp.float32) / white(x.dtype)
        y = blended(jnp.zeros(()), y, _factor(draw, self.brightness))
        y = blended(mean_grey(y), y, _factor(draw, self.contrast))
        y = blended(grey(y), y, _factor(draw, self.saturation))
        if self.hue:
            y = turn_hue(y, between(draw(()), -self.hue, self.hue))
        return rounded(y * white(x.dtype), x.dtype)


def blended(plain: Array, x: Array, factor_B: Array) -> Array:
    """Compute plain + factor (x - plain), kept between black and white, of the type of x."""
    plain = plain.astype(jnp.float32)
    y = plain + per_image(factor_B) * (x.astype(jnp.float32) - plain)
    return rounded(jnp.clip(y, 0, white(x.dtype)), x.dtype)


def grey(x: Array) -> Array:
    """Return how bright each pixel is, float32 [B, H, W, 1]."""
    x = x.astype(jnp.float32)
    return x if x.shape[-1] == 1 else (x * _GREY[None, None, None]).sum(-1, keepdims=True)


def mean_grey(x: Array) -> Array:
    """Return how bright each image is on average, float32 [B, 1, 1, 1]."""
    return grey(x).mean((1, 2), keepdims=True)


def turn_hue(x_BxHxWx3: Array, turn_B: Array) -> Array:
    """Turn the hue of float pictures in [0, 1] by a share of the colour wheel, keeping saturation and value (HSV)."""
    high, low = x_BxHxWx3.max(-1), x_BxHxWx3.min(-1)
    span = high - low
    safe = jnp.where(span > 0, span, 1)
    red, green, blue = (x_BxHxWx3[..., channel] for channel in range(3))
    sixth = jnp.where(
        high == red, (green - blue) / safe, jnp.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    sixth = sixth + 6 * turn_B[:, None, None]
    # A channel is `high` within a sixth of its own hue, `low` beyond a third, and in between it falls in a straight line.
    channels = [low + span * jnp.clip(jnp.abs((sixth - place + 3) % 6 - 3) * -1 + 2, 0, 1) for place in (0.0, 2.0, 4.0)]
    return jnp.stack(channels, -1)


def _factor(draw: Draw, amount: float) -> Array:
    return jnp.maximum(between(draw(()), 1 - amount, 1 + amount), 0)
