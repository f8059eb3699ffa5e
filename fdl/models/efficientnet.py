"""EfficientNet-Lite0: EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) for small devices, TensorFlow's release.

Without squeeze-and-excitation, with ReLU6, and with a stem and a head of fixed widths
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, ops
from fdl.types import Array, DType, Fraction, Outputs, Probability

_HE_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Stage(NamedTuple):
    """Blocks of one width: the stride is the first one's; `expansion` multiplies the channels between the 1 x 1 convolutions."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
"""Of Lite0."""
STEM, HEAD = 32, 1280
"""Channels of the first and of the last convolution."""


class DepthwiseConv(nn.Module):
    """Convolve each channel with its own kernel, parameter [K, K, 1, C], SAME padding, no bias."""

    kernel: int
    stride: int
    dtype: DType

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Compute [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]."""
        # The variance of one input channel: fan_out of a depthwise kernel is K * K.
        kernel = self.param(
            "kernel", nn.initializers.normal((2 / self.kernel**2) ** 0.5), (self.kernel, self.kernel, 1, x.shape[-1])
        )
        return ops.depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, "SAME")


class ConvNorm(nn.Module):
    """A convolution without bias (depthwise where `channels` is 0), BatchNorm, and ReLU6 unless `linear`."""

    channels: int
    kernel: int
    stride: int
    momentum: float
    dtype: DType
    linear: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.channels:
            x = layers.Conv(
                self.channels, self.kernel, self.stride, "SAME", use_bias=False, kernel_init=_HE_OUT,
                dtype=jnp.dtype(self.dtype), name="conv",
            )(x)  # fmt: skip
        else:
            x = DepthwiseConv(self.kernel, self.stride, self.dtype, name="conv")(x)
        x = layers.BatchNorm(self.momentum, self.dtype, epsilon=1e-3, name="norm")(x, train)
        return x if self.linear else nn.relu6(x)


class InvertedResidual(nn.Module):
    """Expand by a 1 x 1 convolution, filter each channel, project by a 1 x 1 (Sandler et al. 2018,
    https://arxiv.org/abs/1801.04381); the input is added where the shapes agree. Without the first where `expansion` is 1.
    """

    channels: int
    kernel: int
    stride: int
    expansion: int
    momentum: float
    dtype: DType

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Compute [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), channels]."""
        y = x
        if self.expansion > 1:
            y = ConvNorm(self.expansion * x.shape[-1], 1, 1, self.momentum, self.dtype, name="expand")(y, train)
        y = ConvNorm(0, self.kernel, self.stride, self.momentum, self.dtype, name="depthwise")(y, train)
        y = ConvNorm(self.channels, 1, 1, self.momentum, self.dtype, linear=True, name="project")(y, train)
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: 4,652,008 parameters with 1,000 outputs, 0.4 billion multiplications for 224 x 224 pixels.

    Padding is TensorFlow's SAME (more at the end where it is odd), the epsilon of BatchNorm 1e-3. Its parts are `stem`,
    `stage1_block1` to `stage7_block1`, `head` and `output`.

    Attributes:
        outputs: units of the last layer; 0: as many as the data ask for.
        dropout: before the last layer.
        batch_norm_momentum: of the running averages.
        dtype: what is computed in; parameters, statistics and outputs are float32.
    """

    outputs: Outputs = 0
    dropout: Probability = 0.0
    batch_norm_momentum: Fraction = 0.99
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, 3] -> [B, outputs]."""
        x = ConvNorm(STEM, 3, 2, self.batch_norm_momentum, self.dtype, name="stem")(x, train)
        layers.show_map(self, "stem_map", x)
        for number, stage in enumerate(STAGES, 1):
            for block in range(1, stage.blocks + 1):
                x = InvertedResidual(
                    stage.channels, stage.kernel, stage.stride if block == 1 else 1, stage.expansion,
                    self.batch_norm_momentum, self.dtype, name=f"stage{number}_block{block}",
                )(x, train)  # fmt: skip
            layers.show_map(self, f"stage{number}_map", x)
        x = ConvNorm(HEAD, 1, 1, self.batch_norm_momentum, self.dtype, name="head")(x, train)
        x = jnp.mean(x, axis=(1, 2))
        if self.dropout:
            x = nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)
        x = nn.Dense(layers.known(self.outputs, "outputs"), dtype=jnp.dtype(self.dtype), name="output")(x)
        return x.astype(jnp.float32)
