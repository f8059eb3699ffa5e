"""Pooling of NHWC images [B, H, W, C] over square windows; no parameters, so the way back returns dx alone."""

from __future__ import annotations

import numpy as np

from fdl.scratch.convolution import Padding, offset_slices, pad
from fdl.scratch.trees import Array, Cache


def _windows(x: Array, window: int, stride: int, padding: Padding, value: float) -> tuple[Array, list, tuple]:
    """Return the padded x, for each place in a window the slice of x at that place in all windows, and the crop."""
    padded, crop = pad(x, (window, window), stride, padding, value)
    out_size = tuple((size - window) // stride + 1 for size in padded.shape[1:3])
    return padded, [pixels for _, pixels in offset_slices((window, window), stride, out_size)], crop


def max_pool(x: Array, window: int = 2, stride: int | None = None, padding: Padding = "valid") -> tuple[Array, Cache]:
    """Compute y[b, i, j, c] = the largest x of window (i, j); a border of padding never wins.

    Args:
        x: [B, H, W, C].
        window: its height and width.
        stride: pixels from one window to the next; the window itself where it is None, so that windows tile.
        padding: "valid", "same" or n.

    Returns:
        y [B, Ho, Wo, C] and the cache.
    """
    padded, slices, crop = _windows(x, window, stride or window, padding, -np.inf)
    y = padded[slices[0]].copy()
    for pixels in slices[1:]:
        np.maximum(y, padded[pixels], out=y)
    return y, (padded, y, slices, crop)


def max_pool_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx: each window hands its dy to the one pixel that won; of several equal ones to the first in reading order."""
    padded, y, slices, crop = cache
    dx = np.zeros(padded.shape, dy.dtype)
    open_windows = np.ones(y.shape, bool)
    for pixels in slices:
        won = (padded[pixels] == y) & open_windows
        dx[pixels] += dy * won  # a pixel may win in several overlapping windows
        open_windows &= ~won
    return dx[crop]


def average_pool(
    x: Array, window: int = 2, stride: int | None = None, padding: Padding = "valid"
) -> tuple[Array, Cache]:
    """Compute y[b, i, j, c] = the mean of window (i, j); a border of padding counts as zeros (Flax's count_include_pad).

    Arguments and result as in `max_pool`.
    """
    padded, slices, crop = _windows(x, window, stride or window, padding, 0)
    y = sum(padded[pixels] for pixels in slices) / window**2
    return y, (padded.shape, slices, crop)


def average_pool_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx: each window hands an equal share, dy / window^2, to each of its pixels."""
    shape, slices, crop = cache
    dx = np.zeros(shape, dy.dtype)
    share = dy / len(slices)
    for pixels in slices:
        dx[pixels] += share
    return dx[crop]


def global_average_pool(x: Array) -> tuple[Array, Cache]:
    """Compute y[b, c] = the mean of x[b, :, :, c]: [B, H, W, C] -> [B, C]. Lin et al. 2014, "Network in network", 3.2."""
    return x.mean(axis=(1, 2)), x.shape


def global_average_pool_backward(dy: Array, shape: Cache) -> Array:
    """Compute dx[b, i, j, c] = dy[b, c] / (H * W)."""
    _, height, width, _ = shape
    return np.broadcast_to(dy[:, None, None, :] / (height * width), shape)
