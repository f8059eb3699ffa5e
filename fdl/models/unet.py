"""The U-Net: a value for every pixel (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, ops
from fdl.types import Array, Count, Fraction, Outputs, Probability


class UNet(nn.Module):
    """Two convolutions at each size of map on the way down, the same on the way up beside what came down at that size.

    Each convolution is 3 x 3, padded, followed by BatchNorm and ReLU; down by max pooling, up by `layers.UpConv`. Pictures
    whose sides the pools do not divide are padded at the bottom and the right, and the outputs cropped.

    Attributes:
        widths: channels at each size of map, from the largest on.
        outputs: numbers for each pixel; 0: as many as the data ask for.
        shrink: squares of `shrink` x `shrink` pixels enter as one with as many times the channels, and leave so: the largest
            maps are the dearest.
        dropout: of whole maps, at the smallest size.
        batch_norm_momentum: of the running averages.
    """

    widths: tuple[Count, ...] = (32, 64, 128)
    outputs: Outputs = 0
    shrink: Count = 1
    dropout: Probability = 0.0
    batch_norm_momentum: Fraction = 0.9

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, C] -> [B, H, W, outputs]; needs a "dropout" key where `train` and `dropout`."""
        outputs, height, width = layers.known(self.outputs, "outputs"), x.shape[1], x.shape[2]
        multiple = self.shrink * 2 ** (len(self.widths) - 1)
        x = jnp.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)))
        x = ops.space_to_depth(x, self.shrink)
        skips: list[Array] = []
        for number, channels in enumerate(self.widths, 1):
            x = x if number == 1 else ops.max_pool(x, 2)
            x = self._two(x, channels, f"down{number}", train)
            skips.append(x)
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
        for number, channels in reversed(list(enumerate(self.widths[:-1], 1))):
            x = layers.UpConv(channels, 1, name=f"up{number}_resize")(x)
            x = self._two(jnp.concatenate([skips[number - 1], x], -1), channels, f"up{number}", train)
        x = layers.Conv(outputs * self.shrink**2, 1, name="output")(x)
        return ops.depth_to_space(x, self.shrink)[:, :height, :width]

    def _two(self, x: Array, channels: int, name: str, train: bool) -> Array:
        for number in (1, 2):
            x = layers.Conv3x3(channels, padding="SAME", name=f"{name}_conv{number}")(x)
            x = layers.norm_relu(x, self.batch_norm_momentum, f"{name}_norm{number}", train)
        return x
