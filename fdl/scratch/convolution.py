"""Convolution (cross-correlation, as every deep-learning library has it) of NHWC images with HWIO kernels.

    y[b, i, j, o] = bias[o] + sum over m, n, c of x[b, i*stride + m, j*stride + n, c] * kernel[m, n, c, o]

with x already padded. The sum is a dot product of a patch and a kernel, so with all patches as rows of one matrix
the whole layer is one matrix product (Chellapilla et al. 2006, "im2col"). `conv_loop` is the same by plain loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fdl.scratch.trees import Array, Cache, Tree

Padding = str | int
""""valid" (none), "same" (output size = ceil(input size / stride)), or that many rows and columns on every side."""


def pad_widths(size: int, window: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return (before, after) along one axis. An odd number of "same" puts the extra one after, as XLA and TensorFlow do.

    Raises:
        ValueError: the padding is neither "valid", "same" nor an integer of 0 or more.
    """
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    if isinstance(padding, str) or padding < 0:
        raise ValueError(f'padding {padding!r}: expected "valid", "same" or an integer of 0 or more')
    return padding, padding


def pad(x: Array, window: tuple[int, int], stride: int, padding: Padding, value: float = 0) -> tuple[Array, tuple]:
    """Pad x [B, H, W, C] with a border of `value`, and return the crop (an index) that takes the border off again."""
    widths = [pad_widths(size, k, stride, padding) for size, k in zip(x.shape[1:3], window, strict=True)]
    crop = tuple(slice(before, before + size) for (before, _), size in zip(widths, x.shape[1:3], strict=True))
    if any(map(any, widths)):
        x = np.pad(x, [(0, 0), *widths, (0, 0)], constant_values=value)
    return x, (slice(None), *crop)


def offset_slices(window: tuple[int, int], stride: int, out_size: tuple[int, int]) -> Iterator[tuple]:
    """Return for each place (m, n) in the window ((m, n), the index of all pixels that are ever there).

    Indexing an image [B, H, W, C] by it gives [B, *out_size, C]: a handful of slices in place of one step per window.
    """
    rows, columns = out_size
    for m in range(window[0]):
        for n in range(window[1]):
            yield (m, n), (slice(None), slice(m, m + stride * rows, stride), slice(n, n + stride * columns, stride))


def conv(x: Array, params: Tree, stride: int = 1, padding: Padding = "valid") -> tuple[Array, Cache]:
    """Convolve by patches.

    Args:
        x: [B, H, W, C].
        params: "kernel" [kh, kw, C, O] and, where there is one, "bias" [O].
        stride: pixels from one window to the next.
        padding: "valid", "same" or n.

    Returns:
        y [B, Ho, Wo, O], Ho = (H + padding - kh) // stride + 1, and the cache.
    """
    kernel = params["kernel"]
    kh, kw, _, features = kernel.shape
    padded, crop = pad(x, (kh, kw), stride, padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))[:, ::stride, ::stride]
    out_shape = windows.shape[:3]  # the view costs nothing; the reshape below copies each pixel kh*kw times
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(math.prod(out_shape), -1)  # [B*Ho*Wo, kh*kw*C]
    y = patches @ kernel.reshape(-1, features)
    if "bias" in params:
        y += params["bias"]
    return y.reshape(*out_shape, features), (patches, params, padded.shape, crop, stride)


def conv_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Apply the dense layer's gradients to patches; dx sends each patch's gradient back to the pixels it was cut from.

    dkernel = patches^T dy;  dbias = sum of dy over B, Ho, Wo;
    dx[b, i*stride + m, j*stride + n, c] += sum over o of dy[b, i, j, o] * kernel[m, n, c, o].

    Args:
        dy: [B, Ho, Wo, O].

    Returns:
        dx [B, H, W, C]; "kernel" [kh, kw, C, O] and "bias" [O].
    """
    patches, params, padded_shape, crop, stride = cache
    kernel = params["kernel"]
    dy_NxO = dy.reshape(-1, dy.shape[-1])
    grads = {"kernel": (patches.T @ dy_NxO).reshape(kernel.shape)}
    if "bias" in params:
        grads["bias"] = dy_NxO.sum(axis=0)
    dx = np.zeros(padded_shape, dy.dtype)
    for place, pixels in offset_slices(kernel.shape[:2], stride, dy.shape[1:3]):
        dx[pixels] += (dy_NxO @ kernel[place].T).reshape(*dy.shape[:3], -1)  # windows overlap, so their gradients add
    return dx[crop], grads


def conv_loop(x: Array, params: Tree, stride: int = 1, padding: Padding = "valid") -> tuple[Array, Cache]:
    """Compute `conv` as its equation reads: one output number at a time. To compare and to time, not to use."""
    kernel = params["kernel"]
    kh, kw, _, features = kernel.shape
    bias = params.get("bias", np.zeros(features, x.dtype))
    padded, crop = pad(x, (kh, kw), stride, padding)
    rows, columns = (padded.shape[1] - kh) // stride + 1, (padded.shape[2] - kw) // stride + 1
    y = np.zeros((len(x), rows, columns, features), x.dtype)
    for b, i, j, o in np.ndindex(y.shape):
        patch = padded[b, i * stride : i * stride + kh, j * stride : j * stride + kw]
        y[b, i, j, o] = np.sum(patch * kernel[..., o]) + bias[o]
    return y, (padded, params, crop, stride)


def conv_loop_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Give dy * kernel to the patch and dy * patch to the kernel of each output number y = sum(patch * kernel) + bias."""
    padded, params, crop, stride = cache
    kernel = params["kernel"]
    kh, kw, _, features = kernel.shape
    dx, dkernel, dbias = np.zeros_like(padded), np.zeros_like(kernel), np.zeros(features, kernel.dtype)
    for b, i, j, o in np.ndindex(dy.shape):
        pixels = b, slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw)
        dx[pixels] += dy[b, i, j, o] * kernel[..., o]
        dkernel[..., o] += dy[b, i, j, o] * padded[pixels]
        dbias[o] += dy[b, i, j, o]
    grads = {"kernel": dkernel, "bias": dbias}
    return dx[crop], {name: grads[name] for name in params}


def transposed_conv(x: Array, params: Tree, stride: int = 1) -> tuple[Array, Cache]:
    """Apply the transpose of a convolution: every input pixel stamps its kernel onto the output. Zeiler et al. 2010.

        y[b, i*stride + m, j*stride + n, o] += sum over c of x[b, i, j, c] * kernel[m, n, c, o]

    Args:
        x: [B, H, W, C].
        params: "kernel" [kh, kw, C, O] and, where there is one, "bias" [O].
        stride: output pixels from one stamp to the next.

    Returns:
        y [B, (H - 1) * stride + kh, (W - 1) * stride + kw, O] ("valid"), and the cache.
    """
    kernel = params["kernel"]
    (rows, columns), (kh, kw) = x.shape[1:3], kernel.shape[:2]
    size = ((rows - 1) * stride + kh, (columns - 1) * stride + kw)
    y = np.zeros((len(x), *size, kernel.shape[-1]), x.dtype)
    for place, pixels in offset_slices((kh, kw), stride, (rows, columns)):
        y[pixels] += x @ kernel[place]  # stamps overlap where the kernel is larger than the stride
    return y + params.get("bias", 0), (x, params, stride)


def transposed_conv_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Gather what each stamp received: dx is a convolution of dy with the same kernel, its two channel axes exchanged.

    dx[b, i, j, c] = sum over m, n, o of dy[b, i*stride + m, j*stride + n, o] * kernel[m, n, c, o].
    """
    x, params, stride = cache
    kernel = params["kernel"]
    dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
    for place, pixels in offset_slices(kernel.shape[:2], stride, x.shape[1:3]):
        dx += dy[pixels] @ kernel[place].T
        dkernel[place] = x.reshape(-1, x.shape[-1]).T @ dy[pixels].reshape(-1, dy.shape[-1])
    grads = {"kernel": dkernel, "bias": dy.sum(axis=(0, 1, 2))}
    return dx, {name: grads[name] for name in params}
