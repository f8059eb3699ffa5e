"""Residual networks (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, ops
from fdl.types import Activation, Array, Count, DType, Fraction, Outputs

Kind = Literal["basic", "bottleneck"]
EXPANSION: dict[Kind, int] = {"basic": 1, "bottleneck": 4}
"""Channels of a block's output, in multiples of its width."""

# He et al. 2015 (https://arxiv.org/abs/1502.01852), equation 14: the variance of gradients is kept, as torchvision has it.
_HE_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Block(nn.Module):
    """y = activation(F(x) + x), x through a 1 x 1 convolution where the shapes differ.

    F is two 3 x 3 convolutions ("basic") or 1 x 1, 3 x 3, 1 x 1 with four times the width at the end ("bottleneck"), each
    followed by BatchNorm and, but for the last, the activation. The stride is in the first 3 x 3 convolution (v1.5).
    Fields as in `ResNet`; `channels` is the width.
    """

    block: Kind
    channels: int
    stride: int
    activation: Activation
    zero_scale: bool
    dtype: DType
    batch_norm_momentum: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Compute [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), channels * expansion]."""
        norm = functools.partial(layers.BatchNorm, self.batch_norm_momentum, self.dtype)
        outputs = self.channels * EXPANSION[self.block]
        shapes = {
            "basic": ((self.channels, 3, self.stride), (outputs, 3, 1)),
            "bottleneck": ((self.channels, 1, 1), (self.channels, 3, self.stride), (outputs, 1, 1)),
        }[self.block]
        residual = x
        for number, (channels, kernel, stride) in enumerate(shapes, 1):
            last = number == len(shapes)
            x = conv(x, channels, kernel, stride, self.dtype, f"conv{number}")
            x = norm(zero_scale=last and self.zero_scale, name=f"norm{number}")(x, train)
            x = x if last else layers.activation(self.activation)(x)
        if residual.shape != x.shape:
            residual = conv(residual, outputs, 1, self.stride, self.dtype, "shortcut_conv")
            residual = norm(name="shortcut_norm")(residual, train)
        return layers.activation(self.activation)(x + residual)


class ResNet(nn.Module):
    """A stem, stages of residual blocks that halve the map and double the width, the mean over the map, a Dense layer.

    In the form known as v1.5, torchvision's: the same parameters, shapes and values, at any size. The maps of the stem
    and of the stages can be read as those of `CNN`.

    Attributes:
        stage_sizes: blocks of each stage.
        block: "basic", two 3 x 3 convolutions; "bottleneck", 1 x 1, 3 x 3, 1 x 1.
        width: channels of the first stage, before a bottleneck's factor of 4.
        outputs: units of the last layer; 0: as many as the data ask for.
        stem: "imagenet": 7 x 7 at a stride of 2 and a 3 x 3 max pool at a stride of 2; "cifar": 3 x 3 alone (section
            4.2), for images of about 32 pixels.
        activation: after each convolution, and after each sum.
        zero_scale: start every block as the identity, its last BatchNorm's scale being zero (Goyal et al. 2017,
            https://arxiv.org/abs/1706.02677, section 5.1).
        batch_norm_momentum: of the running averages.
        dtype: what is computed in; parameters, statistics and outputs are float32.
    """

    stage_sizes: tuple[Count, ...] = (3, 4, 6, 3)
    block: Kind = "bottleneck"
    width: Count = 64
    outputs: Outputs = 0
    stem: Literal["imagenet", "cifar"] = "imagenet"
    activation: Activation = "relu"
    zero_scale: bool = True
    batch_norm_momentum: Fraction = 0.9
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, C] -> [B, outputs]."""
        x = residual_maps(self, x, train)[-1]
        x = jnp.mean(x, axis=(1, 2))
        # Goyal et al. 2017, section 5.1: the last layer from a normal distribution with a deviation of 0.01.
        x = nn.Dense(
            layers.known(self.outputs, "outputs"),
            kernel_init=nn.initializers.normal(0.01),
            dtype=jnp.dtype(self.dtype),
            name="output",
        )(x)
        return x.astype(jnp.float32)


class Backbone(Protocol):
    """The fields of `ResNet` that decide its maps; a module that has them may call `residual_maps`."""

    stage_sizes: tuple[Count, ...]
    block: Kind
    width: Count
    stem: Literal["imagenet", "cifar"]
    activation: Activation
    zero_scale: bool
    batch_norm_momentum: Fraction
    dtype: DType


def residual_maps(module: Backbone, x: Array, train: bool) -> list[Array]:
    """Compute the map of each stage, the parameters being `module`'s under the names of a `ResNet`; for use in its `__call__`."""
    kernel, stride = (7, 2) if module.stem == "imagenet" else (3, 1)
    x = conv(x, module.width, kernel, stride, module.dtype, "stem_conv")
    x = layers.BatchNorm(module.batch_norm_momentum, module.dtype, name="stem_norm")(x, train)
    x = layers.activation(module.activation)(x)
    x = ops.overlapping_max_pool(x) if module.stem == "imagenet" else x
    layers.show_map(module, "stem_map", x)  # type: ignore[arg-type]  # a protocol cannot say that it is an nn.Module
    maps = []
    for stage, blocks in enumerate(module.stage_sizes, 1):
        for number in range(1, blocks + 1):
            x = Block(
                module.block,
                channels=module.width * 2 ** (stage - 1),
                stride=2 if number == 1 and stage > 1 else 1,
                activation=module.activation,
                zero_scale=module.zero_scale,
                dtype=module.dtype,
                batch_norm_momentum=module.batch_norm_momentum,
                name=f"stage{stage}_block{number}",
            )(x, train)
        layers.show_map(module, f"stage{stage}_map", x)  # type: ignore[arg-type]
        maps.append(x)
    return maps


def conv(x: Array, channels: int, kernel: int, stride: int, dtype: DType, name: str) -> Array:
    """Build a square convolution without bias, padded alike on both sides as PyTorch does ("SAME" pads one side at a stride)."""
    pad = (kernel // 2, kernel // 2)
    return layers.Conv(
        channels, kernel, stride, (pad, pad), use_bias=False, kernel_init=_HE_OUT, dtype=jnp.dtype(dtype), name=name
    )(x)


ResNet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block="basic")
ResNet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block="basic")
ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3))
ResNet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3))
ResNet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3))
