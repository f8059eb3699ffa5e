"""The convolutional network for small images."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, ops
from fdl.types import Activation, Array, Count, DType, Fraction, Initializer, Outputs, Probability


class CNN(nn.Module):
    """Stages of convolutions, each ended by a max pool; then Dense layers.

    As it comes: Conv64 3x3 valid, ReLU, MaxPool2, Conv64 3x3 valid, ReLU, MaxPool2, Dense128, ReLU, Dense.

    With BatchNorm a stage ends Conv, MaxPool, BatchNorm, ReLU: the pool first leaves the other two a quarter of the
    numbers. Without it the pool is computed first as well where the activation never falls, for then the two may change
    places.

    The feature maps of the convolutions and of the pools can be read, each as it is handed to the next layer:
    `model.apply(variables, x, mutable=["intermediates"])[1]["intermediates"]` is {"conv1_map": [B, H, W, C],
    "pool1_map": ...}, in the order of the network. Otherwise they cost nothing.

    Attributes:
        filters: filters of the convolutions of each stage; its length is the number of stages.
        kernel: side of the square convolution kernels, in pixels.
        padding: of the convolutions: "VALID" shrinks the map by `kernel` - 1, "SAME" keeps its size.
        convs_per_stage: convolutions before each pool.
        pool: side and stride of the pooling windows (see `ops.max_pool`); 1 pools nothing.
        dense: units of the Dense layers between the last stage and the outputs.
        outputs: units of the last layer; 0: as many as the data ask for.
        activation: after each convolution and hidden Dense layer.
        dropout: the share of units set to zero in training, before each Dense layer (the output layer too).
        conv_dropout: the share of whole feature maps set to zero in training, after each pool (Tompson et al. 2015).
        batch_norm: normalise before each activation; the layer then has no bias, for BatchNorm has its own.
        batch_norm_momentum: of the running averages.
        initializer: of every kernel; biases start at zero.
        dtype: what is computed in; parameters and outputs are float32.
    """

    filters: tuple[Count, ...] = (64, 64)
    kernel: Count = 3
    padding: Literal["VALID", "SAME"] = "VALID"
    convs_per_stage: Count = 1
    pool: Count = 2
    dense: tuple[Count, ...] = (128,)
    outputs: Outputs = 0
    activation: Activation = "relu"
    dropout: Probability = 0.0
    conv_dropout: Probability = 0.0
    batch_norm: bool = False
    batch_norm_momentum: Fraction = 0.9
    initializer: Initializer = "he"
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, C] -> [B, outputs]; needs a "dropout" key where `train` and one of the dropouts.

        Raises:
            ValueError: the map has grown smaller than a pooling window.
        """
        dtype, kernel_init = jnp.dtype(self.dtype), layers.initializer(self.initializer)

        def activate(x: Array, name: str) -> Array:
            if self.batch_norm:
                x = layers.BatchNorm(self.batch_norm_momentum, self.dtype, name=name)(x, train)
            return layers.activation(self.activation)(x)

        # The maximum of a rising function is that of the maximum: the pool may come first.
        pool_first = self.batch_norm or self.activation in layers.RISING
        conv = 0
        for stage, filters in enumerate(self.filters, 1):
            for left in reversed(range(self.convs_per_stage)):
                conv += 1
                if self.padding == "VALID" and min(x.shape[1:3]) < self.kernel:
                    size = f"{x.shape[1]}x{x.shape[2]}"
                    raise ValueError(f"a {self.kernel}x{self.kernel} convolution does not fit into a map of {size}")
                last = left == 0 and self.pool > 1
                merged = last and pool_first and not self.is_mutable_collection("intermediates")
                x = layers.Conv(
                    filters, self.kernel, padding=self.padding, pool=self.pool if merged else 1,
                    use_bias=not self.batch_norm, kernel_init=kernel_init, dtype=dtype, name=f"conv{conv}",
                )(x)  # fmt: skip
                if last and self.batch_norm and not merged:
                    layers.show_map(self, f"conv{conv}_map", x)
                    x = ops.max_pool(x, self.pool)
                x = activate(x, f"conv{conv}_norm")
                if not (last and self.batch_norm):
                    layers.show_map(self, f"conv{conv}_map", x)
                    x = ops.max_pool(x, self.pool) if last and not merged else x
            if self.pool > 1:
                layers.show_map(self, f"pool{stage}_map", x)
            x = nn.Dropout(self.conv_dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        for number, width in enumerate(self.dense, 1):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(
                width, use_bias=not self.batch_norm, kernel_init=kernel_init, dtype=dtype, name=f"dense{number}"
            )(x)
            x = activate(x, f"dense{number}_norm")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(layers.known(self.outputs, "outputs"), kernel_init=kernel_init, dtype=dtype, name="output")(x)
        return x.astype(jnp.float32)
