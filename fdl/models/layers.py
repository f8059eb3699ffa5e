"""What the models share: activations and initialisers by name, convolutions, BatchNorm, feature maps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import ops
from fdl.types import DATA_AXIS, Activation, Array, DType, Initializer


def known(size: int, name: str) -> int:
    """Return `size`, once it is no longer 0, which means "from the data".

    Raises:
        ValueError: it still is.
    """
    if not size:
        raise ValueError(
            f"{name}=0 takes its size from the data: bind the model to it (fdl.experiment.binding.bind_model), or give a number"
        )
    return size


def activation(name: Activation) -> Callable[[Array], Array]:
    """Return the elementwise function of that name; "leaky_relu" has slope 0.01 below zero, "gelu" is by tanh."""
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


RISING: frozenset[Activation] = frozenset({"relu", "leaky_relu", "tanh", "sigmoid", "elu", "linear"})
"""The activations that never fall."""


def initializer(name: Initializer) -> jax.nn.initializers.Initializer:
    """Return the function that draws kernels.

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


class Conv(nn.Module):
    """A square convolution, [B, H, W, C] -> [B, H', W', filters], with the parameters of `nn.Conv`; `pool`: then `max_pool`.

    The bias is added after the pool, to fewer numbers: the maximum of sums with one number is the sum with the maximum.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: ops.Padding = "VALID"
    use_bias: bool = True
    pool: int = 1
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.kernel, self.kernel, x.shape[-1], self.filters))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.pool > 1:
            x = ops.conv_max_pool(x, kernel, self.padding, self.pool)
        else:
            x = ops.conv(x, kernel, self.stride, self.padding)
        if self.use_bias:
            x = ops.add_bias(x, self.param("bias", nn.initializers.zeros, (self.filters,)).astype(self.dtype))
        return x


Conv3x3 = functools.partial(Conv, kernel=3, use_bias=False, kernel_init=initializer("he"))
"""A 3 x 3 convolution without bias, for BatchNorm has its own, to come before `norm_relu`."""


class UpConv(nn.Module):
    """A square convolution to maps of twice the size, [B, H, W, C] -> [B, 2H, 2W, filters] (Shi et al. 2016,
    https://arxiv.org/abs/1609.05158).

    The convolution gives 4 * `filters` channels at the small size, which become squares of 2 x 2 pixels: a transposed
    convolution without its multiplications by zero.
    """

    filters: int
    kernel: int = 3
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(4 * self.filters, self.kernel, padding="SAME", kernel_init=self.kernel_init, name="conv")(x)
        return ops.depth_to_space(x, 2)


def data_axis() -> str | None:
    """Return DATA_AXIS if the code being traced is mapped over that axis (`pmap`, `shard_map`), else None.

    Under `jit` a batch is one array over all devices, so there is nothing to reduce over.
    """
    try:
        jax.lax.axis_size(DATA_AXIS)
    except NameError:  # JAX's own way to say that no axis of that name is bound
        return None
    return DATA_AXIS


class BatchNorm(nn.Module):
    """BatchNorm over all axes but the last (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).

    Statistics are the batch's in training and the running averages `momentum * old + (1 - momentum) * batch` otherwise. The
    batch is the global one, however deep the module lies: where the computation is mapped over the data axis, sums are
    reduced over it. Parameters, statistics and values are those of `nn.BatchNorm`.

    Attributes:
        zero_scale: start as the constant 0.
        use_scale: whether there is a trained scale; without it, it is 1.
    """

    momentum: float
    dtype: DType = "float32"
    zero_scale: bool = False
    epsilon: float = 1e-5
    use_scale: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (x.shape[-1],)
        old_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        old_var = self.variable("batch_stats", "var", jnp.ones, shape)
        start = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", start, shape) if self.use_scale else jnp.ones(shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = old_mean.value, old_var.value
        if train:
            count = x.size // x.shape[-1]
            sums = jnp.stack([ops.channel_sum(wide), ops.channel_sum(wide * wide)]) / count
            axis = data_axis()
            sums = jax.lax.pmean(sums, axis) if axis else sums
            mean, var = sums[0], jnp.maximum(sums[1] - sums[0] * sums[0], 0)
            if not self.is_initializing():
                old_mean.value = self.momentum * old_mean.value + (1 - self.momentum) * mean
                old_var.value = self.momentum * old_var.value + (1 - self.momentum) * var
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return ops.normalise(x, mean, factor, bias).astype(self.dtype)


def norm_relu(x: Array, momentum: float, name: str, train: bool) -> Array:
    """Apply a `BatchNorm` of that name and ReLU; for use in a compact method."""
    return nn.relu(BatchNorm(momentum, name=name)(x, train))


def show_map(module: nn.Module, name: str, x: Array) -> None:
    """Sow `x` as "intermediates"/`name`, for whoever asks for that collection; otherwise it costs nothing."""
    # As the array itself: by default sow would gather a tuple over repeated calls.
    module.sow("intermediates", name, x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
