"""Nets for clips [B, T, H, W, C]: convolutions over space and time, or over space with a recurrence over time.

Legend: B batch, T frames, H height, W width, C channels.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, scans
from fdl.types import Array, Count, Fraction, Outputs, Probability


class TimeConv(nn.Module):
    """A convolution of 3 frames, each pixel alone, [B, T, H, W, C] -> [B, T, H, W, filters], as three matrix products."""

    filters: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param(
            "kernel", nn.initializers.variance_scaling(2.0, "fan_in", "normal", (0, 1)), (3, x.shape[-1], self.filters)
        )
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        frames = x.shape[1]
        products = [padded[:, time : time + frames] @ kernel[time] for time in range(3)]
        return products[0] + products[1] + products[2]


def halved(x: Array, filters: int, momentum: float, name: str, train: bool) -> Array:
    """Apply a 3 x 3 convolution at a stride of 2 to every frame, BatchNorm and ReLU; for use in a compact method."""
    frames = x.reshape(-1, *x.shape[2:])
    made = layers.Conv3x3(filters, stride=2, padding=((1, 1), (1, 1)), name=name)(frames)
    return layers.norm_relu(made.reshape(*x.shape[:2], *made.shape[1:]), momentum, f"{name}_norm", train)


class VideoCNN(nn.Module):
    """Stages of a (2+1)D convolution: 3 x 3 pixels at a stride of 2, then 3 frames (Tran et al. 2018,
    https://arxiv.org/abs/1711.11248); each followed by BatchNorm and ReLU. Then the mean over all places and frames.

    Attributes:
        filters: of each stage.
        outputs: units of the last layer; 0: as many as the data ask for.
        dropout: the share of units set to zero before it.
        batch_norm_momentum: of the running averages.
    """

    filters: tuple[Count, ...] = (16, 32, 64)
    outputs: Outputs = 0
    dropout: Probability = 0.0
    batch_norm_momentum: Fraction = 0.9

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, T, H, W, C] -> [B, outputs]; needs a "dropout" key where `train` and `dropout`."""
        for number, filters in enumerate(self.filters, 1):
            x = halved(x, filters, self.batch_norm_momentum, f"space{number}", train)
            x = TimeConv(filters, name=f"time{number}")(x)
            x = layers.norm_relu(x, self.batch_norm_momentum, f"time{number}_norm", train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2, 3)))
        return nn.Dense(layers.known(self.outputs, "outputs"), name="output")(x)


class FrameLSTM(nn.Module):
    """A small CNN on every frame, an LSTM over what it says, a Dense on the last state (Donahue et al. 2015,
    https://arxiv.org/abs/1411.4389).

    Attributes:
        filters: of each 3 x 3 convolution at a stride of 2.
        width: units of the LSTM.
        outputs, dropout, batch_norm_momentum: as of `VideoCNN`.
    """

    filters: tuple[Count, ...] = (16, 32, 64)
    width: Count = 128
    outputs: Outputs = 0
    dropout: Probability = 0.0
    batch_norm_momentum: Fraction = 0.9

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, T, H, W, C] -> [B, outputs]; needs a "dropout" key where `train` and `dropout`."""
        for number, filters in enumerate(self.filters, 1):
            x = halved(x, filters, self.batch_norm_momentum, f"conv{number}", train)
        x = x.reshape(*x.shape[:2], -1).transpose(1, 0, 2)  # time leads
        products = nn.Dense(4 * self.width, name="input")(x)
        recurrent = self.param("recurrent", nn.initializers.orthogonal(), (self.width, 4 * self.width))
        zeros = jnp.zeros((x.shape[1], self.width))
        states, _ = scans.lstm(products, (zeros, zeros), recurrent)
        last = nn.Dropout(self.dropout, deterministic=not train)(states[-1])
        return nn.Dense(layers.known(self.outputs, "outputs"), name="output")(last)
