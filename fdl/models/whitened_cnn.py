"""The convolutional network of CIFAR-10's speed records: a whitening first layer, then groups that start as the identity."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models import layers
from fdl.types import Activation, Array, Count, DType, Fraction, Outputs, Positive


class WhitenedCNN(nn.Module):
    """The network of Jordan's airbench (2024, https://arxiv.org/abs/2404.00498, section 3; code of the Muon version).

    A K x K convolution that decorrelates the pixels of a patch, GELU; then for each width a group of
    Conv3x3, MaxPool2, BatchNorm, GELU, Conv3x3, BatchNorm, GELU; the maximum of each map; Dense without bias.

    The first kernel is computed from training pictures and not trained: give the experiment the update
    `fdl.experiment.Whiten` and freeze "whiten/kernel". BatchNorm has no scale, because the next kernel has one.

    Attributes:
        widths: filters of both convolutions of each group.
        patch: K.
        outputs: units of the last layer; 0: as many as the data ask for.
        activation: after each BatchNorm and after the first convolution.
        batch_norm_momentum: of the running averages; small, so that those of a short run follow.
        logit_scale: multiplies the outputs, so that the first logits are small.
        dtype: what is computed in; parameters and outputs are float32.
    """

    widths: tuple[Count, ...] = (64, 256, 256)
    patch: Count = 2
    outputs: Outputs = 0
    activation: Activation = "gelu"
    batch_norm_momentum: Fraction = 0.6
    logit_scale: Positive = 1 / 9
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, C] -> [B, outputs]."""
        dtype, activate = jnp.dtype(self.dtype), layers.activation(self.activation)
        x = layers.Conv(2 * self.patch**2 * x.shape[-1], self.patch, dtype=dtype, name="whiten")(x)
        x = activate(x)
        layers.show_map(self, "whiten_map", x)
        for group, width in enumerate(self.widths, 1):
            for number, pool in ((1, 2), (2, 1)):
                x = layers.Conv(
                    width, 3, padding="SAME", pool=pool, use_bias=False, kernel_init=start_as_identity, dtype=dtype,
                    name=f"group{group}_conv{number}",
                )(x)  # fmt: skip
                norm = layers.BatchNorm(
                    self.batch_norm_momentum, self.dtype, use_scale=False, name=f"group{group}_norm{number}"
                )
                x = activate(norm(x, train))
            layers.show_map(self, f"group{group}_map", x)
        x = x.max((1, 2))
        x = nn.Dense(layers.known(self.outputs, "outputs"), use_bias=False, dtype=dtype, name="output")(x)
        return x.astype(jnp.float32) * self.logit_scale


def start_as_identity(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """Draw a kernel [K, K, C, O] whose first min(C, O) filters hand their channel through (a "dirac" start).

    The other filters are uniform with variance 1 / (3 K K C), PyTorch's default (airbench, section 3.3 of the paper).
    """
    rows, columns, channels, filters = shape
    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    same = min(channels, filters)
    kernel = kernel.at[..., :same].set(0)
    return kernel.at[rows // 2, columns // 2, jnp.arange(same), jnp.arange(same)].set(1)


def whitening_kernel(pictures_NxHxWxC: np.ndarray, patch: int, epsilon: float = 5e-4) -> np.ndarray:
    """Compute the kernel [K, K, C, 2 K K C] whose first half maps patches to uncorrelated values of variance near 1.

    The filters are v / sqrt(variance + epsilon) for each principal axis v of the patches; the second half is their
    negative, so that an activation that cuts one sign off loses nothing (airbench, section 3.2 of the paper).

    Raises:
        ValueError: the pictures are smaller than a patch.
    """
    windows = np.lib.stride_tricks.sliding_window_view(pictures_NxHxWxC, (patch, patch), axis=(1, 2))
    channels = pictures_NxHxWxC.shape[-1]
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, patch * patch * channels).astype(np.float64)
    variances, axes = np.linalg.eigh(flat.T @ flat / len(flat))
    # An axis may point either way: fix it, so that no library version turns it.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(len(axes))])
    filters = axes / np.sqrt(np.maximum(variances, 0) + epsilon)
    kernel = np.concatenate([filters, -filters], 1).reshape(patch, patch, channels, -1)
    return kernel.astype(np.float32)
