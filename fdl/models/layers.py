"""What the models share: activations and initialisers by name, and pooling that is fast on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.types import Activation, Array, DType, Initializer


def activation(name: Activation) -> Callable[[Array], Array]:
    """The elementwise function of that name; "leaky_relu" has slope 0.01 below zero, "gelu" is by tanh."""
    functions: dict[str, Callable[[Array], Array]] = {
        "relu": nn.relu,
        "leaky_relu": nn.leaky_relu,
        "gelu": nn.gelu,
        "silu": nn.silu,
        "tanh": nn.tanh,
        "sigmoid": nn.sigmoid,
        "elu": nn.elu,
        "linear": lambda x: x,
    }
    return functions[name]


def initializer(name: Initializer) -> jax.nn.initializers.Initializer:
    """How kernels are drawn.

    - "he": normal, variance 2 / fan_in (He et al. 2015, https://arxiv.org/abs/1502.01852), for ReLU and its kin
    - "xavier": uniform, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010), for tanh and sigmoid
    - "lecun": normal, variance 1 / fan_in (LeCun et al. 1998), Flax's own default
    - "orthogonal": a random orthogonal matrix (Saxe et al. 2013, https://arxiv.org/abs/1312.6120)
    - "normal": standard deviation 0.02
    - "large": normal, standard deviation 10, to see what too large a start does: it is no way to train a net
    - "zeros": all alike, so that the units of a layer stay alike, to see that as well
    """
    inits = nn.initializers
    drawn: dict[str, jax.nn.initializers.Initializer] = {
        "he": inits.he_normal(),
        "xavier": inits.xavier_uniform(),
        "lecun": inits.lecun_normal(),
        "orthogonal": inits.orthogonal(),
        "normal": inits.normal(0.02),
        "large": inits.normal(10.0),
        "zeros": inits.zeros_init(),
    }
    return drawn[name]


def batch_norm(
    x: Array, train: bool, momentum: float, dtype: DType, axis_name: str | None, name: str | None = None,
    zero_scale: bool = False,
) -> Array:  # fmt: skip
    """BatchNorm over all axes but the last (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).

    To be called inside a compact method. Statistics are the batch's in training (over every device of `axis_name`)
    and the running averages `momentum * old + (1 - momentum) * batch` otherwise. `zero_scale`: start as the constant 0.
    """
    norm = nn.BatchNorm(
        use_running_average=not train, momentum=momentum, dtype=jnp.dtype(dtype), axis_name=axis_name, name=name,
        scale_init=nn.initializers.zeros_init() if zero_scale else nn.initializers.ones_init(),
    )  # fmt: skip
    return norm(x)


def max_pool(x_BxHxWxC: Array, window: int) -> Array:
    """The maximum of each `window` x `window` tile, [B, H // window, W // window, C]; what fills no tile is cropped.

    Values equal `nn.max_pool(x, (window, window), strides=(window, window))`. The gradient differs where several
    entries of a tile are the maximum: here they share it equally, there the first takes all. A reshape and a maximum is
    used because the gradient of a window reduction is many times slower on CPUs; of the forms tried in fashion_cnn's step
    (one maximum over both axes, strided slices, a mask written by hand), row by row and then column by column was the
    fastest that is a true subgradient: 31 ms a step against 38 (2 cores, AMD EPYC 9005, jax 0.10.2).
    """
    tiles = _tiles(x_BxHxWxC, window)
    rows = functools.reduce(jnp.maximum, [tiles[:, :, i] for i in range(window)])
    return functools.reduce(jnp.maximum, [rows[:, :, :, i] for i in range(window)])


def overlapping_max_pool(x_BxHxWxC: Array) -> Array:
    """The maximum of each 3 x 3 window at a stride of 2, one pixel of padding around: [B, ceil(H / 2), ceil(W / 2), C].

    Values equal `nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))`, the pool of ResNet's stem. Ties share
    the gradient. By strided slices, rows first, because the gradient of a window reduction is slow on CPUs: of
    ReLU and this pool together over 16 x 112 x 112 x 64, 51 ms against 302 ms by `nn.max_pool` and 448 ms by nine slices
    at once (2 cores, AMD EPYC 9005, jax 0.10.2).
    """
    x = jnp.pad(x_BxHxWxC, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        size = (x.shape[axis] - 1) // 2
        windows = (jax.lax.slice_in_dim(x, i, i + 2 * size - 1, 2, axis) for i in range(3))
        x = functools.reduce(jnp.maximum, windows)
    return x


def avg_pool(x_BxHxWxC: Array, window: int) -> Array:
    """The mean of each `window` x `window` tile, [B, H // window, W // window, C]; what fills no tile is cropped."""
    return jnp.mean(_tiles(x_BxHxWxC, window), axis=(2, 4))


def _tiles(x: Array, window: int) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = height // window, width // window
    if not rows or not columns:
        raise ValueError(f"a {window}x{window} pool does not fit into a map of {height}x{width}")
    cropped = x[:, : rows * window, : columns * window]
    return cropped.reshape(batch, rows, window, columns, window, channels)
