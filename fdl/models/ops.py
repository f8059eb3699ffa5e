"""Convolutions, pools and sums over channels, in the form that is fast on the platform they are compiled for.

On CPUs XLA (jax 0.10.2) makes a convolution itself about as fast as a matrix product, but what surrounds it
slow: a sum over B, H and W takes far longer than reading its input; a convolution with one or three input channels is bound
by its own arrangements; and the transpositions that the kernel's gradient needs are computed together with everything that
their input is made of, element by element. This file has, for each, the plain form for accelerators and the one
for CPUs: both plain JAX, equal in value and gradient but for the order in which numbers are added. Which of them is
compiled is decided by the platform that the program is compiled for, not by the one that it is traced on.

The price is forward-mode differentiation: `add_bias`, `normalise`, `conv`, `conv_max_pool` and `max_pool` define their own
gradient (`jax.custom_vjp`), so JAX refuses `jax.jvp`, `jax.linearize` and Hessian-vector products forward over reverse of any
model with a convolution or BatchNorm. Reverse mode works at any order: `jax.vjp(jax.grad(loss), params)` gives a
Hessian-vector product.

Legend: B batch, H rows, W columns, C channels in, O channels out, K side of a kernel, P side of a pool.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.types import Array

Padding = str | tuple[tuple[int, int], tuple[int, int]]
"""Of rows and columns: "VALID", "SAME", or zeros before and after each."""
_MOST_TAPS = 18
"""Numbers of a kernel, K * K * C, up to which a convolution is computed tap by tap together with its pool: from 25 on the
forward pass alone is slower that way (docs/speed.md)."""


def _by_platform(cpu: Callable[..., Any], others: Callable[..., Any], *arrays: Array) -> Any:
    return lax.platform_dependent(*arrays, cpu=cpu, default=others)


def _along(values_C: Array, x: Array) -> Array:
    """Reshape [C] to [1, ..., 1, C], to broadcast against x."""
    return values_C.reshape((1,) * (x.ndim - 1) + (-1,))


def channel_sum(x: Array) -> Array:
    """Sum over all axes but the last, [C].

    On a CPU as a product with ones, which is faster and more exact. Example by example first, so that over several devices
    only the [C] of each are added up.
    """

    def cpu(x: Array) -> Array:
        if x.ndim == 2:
            return jnp.ones(len(x), x.dtype) @ x
        x = x.reshape(len(x), -1, x.shape[-1])
        return jnp.einsum("bn,bnc->bc", jnp.ones(x.shape[:2], x.dtype), x).sum(0)

    return _by_platform(cpu, lambda x: x.sum(range(x.ndim - 1)), x)


@jax.custom_vjp
def add_bias(x: Array, bias_C: Array) -> Array:
    """Compute x + bias."""
    return x + _along(bias_C, x)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), lambda _, dy: (dy, channel_sum(dy)))


@jax.custom_vjp
def normalise(x: Array, mean_C: Array, factor_C: Array, bias_C: Array) -> Array:
    """Compute (x - mean) * factor + bias."""
    return (x - _along(mean_C, x)) * _along(factor_C, x) + _along(bias_C, x)


def _normalise_backward(saved: Any, dy: Array) -> tuple[Array, ...]:
    x, mean, factor = saved
    total = channel_sum(dy)
    product = channel_sum(dy * (x - _along(mean, x)))
    return (dy * _along(factor, x)).astype(x.dtype), -factor * total, product, total


normalise.defvjp(lambda x, mean, *rest: (normalise(x, mean, *rest), (x, mean, rest[0])), _normalise_backward)


def _kept(number: Array, *arrays: Array) -> tuple[Array, ...]:
    """Return the arrays as they are, but made once: what they are computed from is not computed again where they are used.

    A CPU program forgets optimization_barrier before it fuses; a condition's operands it has to make. Which of its branches
    is taken (by a number that XLA cannot know) is all the same: both are what they are given.
    """

    def same(*arrays: Array) -> tuple[Array, ...]:
        return tuple(jnp.sign(each) * jnp.abs(each) for each in arrays)

    return tuple(lax.cond(jnp.isfinite(number), lambda *a: a, same, *arrays))


def _conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x_BxHxWxC: Array, kernel_KxKxCxO: Array, stride: int = 1, padding: Padding = "VALID") -> Array:
    """Compute a square convolution (that is, a correlation), [B, H', W', O]."""
    return _conv(x_BxHxWxC, kernel_KxKxCxO, stride, padding)


def _conv_backward(stride: int, padding: Padding, saved: Any, dy: Array) -> tuple[Array, Array]:
    x, kernel = saved

    def by_kernel(x: Array, dy: Array) -> Array:
        return jax.linear_transpose(lambda kernel: _conv(x, kernel, stride, padding), kernel)(dy)[0]

    dx = jax.linear_transpose(lambda x: _conv(x, kernel, stride, padding), x)(dy)[0]
    number = lax.slice(kernel, (0,) * kernel.ndim, (1,) * kernel.ndim).reshape(())
    return dx, _by_platform(lambda x, dy: by_kernel(*_kept(number, x, dy)), by_kernel, x, dy)


conv.defvjp(lambda x, kernel, *how: (_conv(x, kernel, *how), (x, kernel)), _conv_backward)


def depthwise_conv(x_BxHxWxC: Array, kernel_KxKx1xC: Array, stride: int = 1, padding: Padding = "SAME") -> Array:
    """Convolve each channel with its own square kernel, [B, H', W', C].

    XLA has no fast form of it on CPUs; there the K * K shifted inputs are multiplied by their weights and added up.
    """
    return _by_platform(
        functools.partial(_shifted_sum, stride=stride, padding=padding),
        functools.partial(_grouped_conv, stride=stride, padding=padding),
        x_BxHxWxC, kernel_KxKx1xC,
    )  # fmt: skip


def _grouped_conv(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1]
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("stride", "padding"))  # one program where it is not traced into another
def _shifted_sum(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    side = kernel.shape[0]
    pads = _pads(x, kernel.shape, padding, stride)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    high, wide = ((size - side) // stride + 1 for size in x.shape[1:3])
    shifted = (
        x[:, row : row + (high - 1) * stride + 1 : stride, column : column + (wide - 1) * stride + 1 : stride]
        * _along(kernel[row, column, 0], x)
        for row in range(side)
        for column in range(side)
    )
    return functools.reduce(jnp.add, shifted)


def conv_max_pool(x_BxHxWxC: Array, kernel_KxKxCxO: Array, padding: Padding, window: int) -> Array:
    """Compute `max_pool` of `conv`, [B, H' // P, W' // P, O].

    The first layer of a CNN for grey images is little but its maps' way to memory and back. On a CPU its few products are
    computed where the maximum is taken, and again for the gradient; the maps before the pool are never written.

    Raises:
        ValueError: the window is larger than the convolution's map.
    """
    pads = _pads(x_BxHxWxC, kernel_KxKxCxO.shape, padding)
    sizes = [x_BxHxWxC.shape[1 + i] + sum(pads[i]) - kernel_KxKxCxO.shape[i] + 1 for i in range(2)]
    _check_fits(sizes[0], sizes[1], window)

    def plain(x: Array, kernel: Array) -> Array:
        # What fills no tile is not computed: of fashion_cnn's second maps, 11 x 11, the last row and column.
        kept = tuple((low, high - size % window) for (low, high), size in zip(pads, sizes, strict=True))
        for axis, (_, high) in enumerate(kept, 1):
            x = lax.slice_in_dim(x, 0, x.shape[axis] + min(high, 0), axis=axis)
        return max_pool(conv(x, kernel, 1, tuple((low, max(high, 0)) for low, high in kept)), window)

    if math.prod(kernel_KxKxCxO.shape[:3]) > _MOST_TAPS:
        return plain(x_BxHxWxC, kernel_KxKxCxO)
    return _by_platform(lambda x, kernel: _pooled(x, kernel, padding, window), plain, x_BxHxWxC, kernel_KxKxCxO)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pooled(x: Array, kernel: Array, padding: Padding, window: int) -> Array:
    return _tiles_of(_taps(x, kernel.shape, padding, window), kernel).max(-2)


def _pads(x: Array, shape: tuple[int, ...], padding: Padding, stride: int = 1) -> Sequence[tuple[int, int]]:
    strides = (stride, stride)
    return lax.padtype_to_pads(x.shape[1:3], shape[:2], strides, padding) if isinstance(padding, str) else padding


def _taps(x: Array, shape: tuple[int, ...], padding: Padding, window: int) -> Array:
    """Gather what each number of a kernel meets, [K * K * C, B, H' // P, W' // P, P * P]."""
    rows, columns, channels, _ = shape
    x = jnp.pad(x, ((0, 0), *_pads(x, shape, padding), (0, 0)))
    high, wide = (x.shape[1] - rows + 1) // window, (x.shape[2] - columns + 1) // window

    def at(row: int, column: int, channel: int) -> Array:
        return x[:, row : row + high * window : window, column : column + wide * window : window, channel][
            :, :high, :wide
        ]

    tile = [(i, j) for i in range(window) for j in range(window)]
    places = [(i, j, c) for i in range(rows) for j in range(columns) for c in range(channels)]
    return jnp.stack([jnp.stack([at(row + i, column + j, c) for i, j in tile], -1) for row, column, c in places])


def _tiles_of(taps: Array, kernel: Array) -> Array:
    """Compute the convolution, tile by tile: [B, H' // P, W' // P, P * P, O]."""
    products = (
        tap[..., None] * _along(weights, tap[..., None])
        for tap, weights in zip(taps, kernel.reshape(len(taps), -1), strict=True)
    )
    return functools.reduce(jnp.add, products)


def _pooled_forward(x: Array, kernel: Array, padding: Padding, window: int) -> tuple[Array, Any]:
    taps = _taps(x, kernel.shape, padding, window)
    tiles = _tiles_of(taps, kernel)
    return tiles.max(-2), (x, kernel, taps, jnp.argmax(tiles, -2))


def _pooled_backward(padding: Padding, window: int, saved: Any, dy: Array) -> tuple[Array, Array]:
    x, kernel, taps, first = saved
    d_tiles = _to_first(dy, first, window)
    d_kernel = taps.reshape(len(taps), -1) @ d_tiles.reshape(-1, d_tiles.shape[-1])

    def tiles(x: Array) -> Array:
        return _tiles_of(_taps(x, kernel.shape, padding, window), kernel)

    return jax.linear_transpose(tiles, x)(d_tiles)[0], d_kernel.reshape(kernel.shape)


_pooled.defvjp(_pooled_forward, _pooled_backward)


def _to_first(dy: Array, first: Array, window: int) -> Array:
    """Put the maximum's gradient [B, H', W', C] at the place noted in its tile, [B, H', W', P * P, C].

    Noted in the forward pass, by one reduction. To ask again which entries equal the maximum would not be safe: what
    XLA computes in two places may differ in the last bit, and then none does.
    """
    places = jnp.arange(window * window, dtype=first.dtype).reshape(1, 1, 1, -1, 1)
    return jnp.where(places == first[..., None, :], dy[..., None, :], 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x_BxHxWxC: Array, window: int) -> Array:
    """Take the maximum of each P x P tile, [B, H // P, W // P, C]; what fills no tile is cropped.

    Values and gradient equal those of `nn.max_pool(x, (P, P), strides=(P, P))`: of several maxima the first takes the whole
    gradient. The gradient of XLA's window reductions is slow on CPUs.
    """
    return _flat_tiles(x_BxHxWxC, window).max(-2)


def _flat_tiles(x: Array, window: int) -> Array:
    """Return the tiles [B, H // P, W // P, P * P, C]."""
    tiles = _tiles(x, window).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(*tiles.shape[:3], window * window, -1)


def _max_pool_forward(x: Array, window: int) -> tuple[Array, tuple[Array, Any]]:
    tiles = _flat_tiles(x, window)
    return tiles.max(-2), (jnp.argmax(tiles, -2), x[:0])


def _max_pool_backward(window: int, saved: tuple[Array, Any], dy: Array) -> tuple[Array]:
    first, like = saved
    shape = jax.ShapeDtypeStruct((len(dy), *like.shape[1:]), like.dtype)
    return tuple(jax.linear_transpose(lambda x: _flat_tiles(x, window), shape)(_to_first(dy, first, window)))


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def overlapping_max_pool(x_BxHxWxC: Array) -> Array:
    """Take the maximum of each 3 x 3 window, stride 2, one pixel of padding: [B, ceil(H / 2), ceil(W / 2), C].

    Values and gradient equal those of `nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))`, the pool of
    ResNet's stem: of several maxima the leftmost of the topmost row takes the gradient. By strided slices, because the
    gradient of a window reduction is slow on CPUs.
    """
    x = jnp.pad(x_BxHxWxC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    for axis in (2, 1):  # in this order the first of equal maxima in the order of rows wins
        size = (x.shape[axis] - 1) // 2
        windows = (jax.lax.slice_in_dim(x, i, i + 2 * size - 1, 2, axis) for i in range(3))
        x = functools.reduce(_larger, windows)
    return x


def _larger(a: Array, b: Array) -> Array:
    """Compute jnp.maximum, NaN included; its gradient asks which is larger, not which equals the result (see `_to_first`)."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def avg_pool(x_BxHxWxC: Array, window: int) -> Array:
    """Average each `window` x `window` tile, [B, H // window, W // window, C]; what fills no tile is cropped."""
    return jnp.mean(_tiles(x_BxHxWxC, window), axis=(2, 4))


def space_to_depth(x_BxHxWxC: Array, side: int) -> Array:
    """Make one pixel of each `side` x `side` square, [B, H / side, W / side, side^2 * C]; the inverse of `depth_to_space`."""
    tiles = _flat_tiles(x_BxHxWxC, side)
    return tiles.reshape(*tiles.shape[:3], -1)


def depth_to_space(x_BxHxWxC: Array, side: int) -> Array:
    """Make a square of `side` x `side` pixels of each one, [B, side * H, side * W, C / side^2]; channels are [row, column, C]."""
    batch, height, width, channels = x_BxHxWxC.shape
    squares = x_BxHxWxC.reshape(batch, height, width, side, side, channels // side**2).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, height * side, width * side, -1)


def _tiles(x: Array, window: int) -> Array:
    batch, height, width, channels = x.shape
    _check_fits(height, width, window)
    rows, columns = height // window, width // window
    cropped = x[:, : rows * window, : columns * window]
    return cropped.reshape(batch, rows, window, columns, window, channels)


def _check_fits(height: int, width: int, window: int) -> None:
    if min(height, width) < window:
        raise ValueError(f"a {window}x{window} pool does not fit into a map of {height}x{width}")
