"""What augmentations of pictures [B, H, W, C] share: checks, whole numbers, sampling between pixels."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.types import Array, UserError


def pictures(x: Array, op: object) -> Array:
    """Return `x` if it is a batch of pictures.

    Raises:
        UserError: it has no axes [B, H, W, C].
    """
    if getattr(x, "ndim", 0) != 4:
        shape = f"{x.dtype} {['B', *x.shape[1:]]}" if hasattr(x, "shape") else type(x).__name__
        raise UserError(f"{type(op).__name__} is for pictures [B, H, W, C], the inputs are {shape}")
    return x


def per_image(values_B: Array) -> Array:
    """Reshape [B] to [B, 1, 1, 1]."""
    return values_B[:, None, None, None]


def whole(uniform: Array, count: int | Array) -> Array:
    """Turn uniform numbers in [0, 1) into whole numbers 0 ... count - 1, each equally likely."""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)  # the product may round up to count


def between(uniform: Array, low: float, high: float) -> Array:
    """Turn uniform numbers in [0, 1) into numbers of [low, high)."""
    return low + (high - low) * uniform


def white(dtype: Any) -> float:
    """Return the value of white in pictures of a type: 255 for uint8, 1 for floats."""
    return float(np.iinfo(dtype).max) if jnp.issubdtype(dtype, jnp.integer) else 1.0


def rounded(x: Array, dtype: Any) -> Array:
    """Convert float pictures back to `dtype`: whole numbers are rounded and kept in range."""
    if jnp.issubdtype(dtype, jnp.integer):
        x = jnp.clip(jnp.round(x), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return x.astype(dtype)


def sample(x_BxHxWxC: Array, rows_BxHxW: Array, columns_BxHxW: Array, fill: float | None) -> Array:
    """Read pictures between their pixels, by bilinear interpolation; around them is `fill`, or (None) their border repeated.

    Args:
        rows_BxHxW, columns_BxHxW: for each pixel of the result, where it is read, in pixels from the first one's centre.

    Returns:
        Of the type of `x`, whole numbers rounded.
    """
    batch, height, width, channels = x_BxHxWxC.shape
    if fill is None:
        rows_BxHxW, columns_BxHxW = jnp.clip(rows_BxHxW, 0, height - 1), jnp.clip(columns_BxHxW, 0, width - 1)
    around = jnp.asarray(fill or 0, x_BxHxWxC.dtype)
    x = jnp.pad(x_BxHxWxC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=around)
    flat = x.reshape(batch, -1, channels)
    row, column = jnp.clip(rows_BxHxW + 1, 0, height + 1), jnp.clip(columns_BxHxW + 1, 0, width + 1)
    top, left = (jnp.clip(jnp.floor(v), 0, n).astype(jnp.int32) for v, n in ((row, height), (column, width)))
    down, right = (row - top)[..., None], (column - left)[..., None]

    def at(down: int, right: int) -> Array:
        place = ((top + down) * (width + 2) + left + right).reshape(batch, -1, 1)
        read = jnp.take_along_axis(flat, place, axis=1, mode="promise_in_bounds")
        return read.reshape(*rows_BxHxW.shape, channels).astype(jnp.float32)

    upper, lower = (at(i, 0) * (1 - right) + at(i, 1) * right for i in (0, 1))
    return rounded(upper * (1 - down) + lower * down, x_BxHxWxC.dtype)


def affine(x_BxHxWxC: Array, matrix_Bx2x2: Array, shift_Bx2: Array, fill: float | None) -> Array:
    """Read pictures at matrix @ (place - centre) + centre + shift, (rows, columns) in pixels; see `sample`."""
    height, width = x_BxHxWxC.shape[1:3]
    centre = np.array([(height - 1) / 2, (width - 1) / 2], np.float32)
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).astype(np.float32) - centre
    at = jnp.einsum("bij,hwj->bhwi", matrix_Bx2x2, grid) + (shift_Bx2 + centre[None])[:, None, None]
    return sample(x_BxHxWxC, at[..., 0], at[..., 1], fill)
