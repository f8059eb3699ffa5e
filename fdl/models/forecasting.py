"""Forecasting nets: a window over several columns in, the next steps of the target columns out.

Legend: B batch, W steps of the window, C columns, K target columns, H steps of the horizon.

Each is given [B, W, C], scaled, and returns [B, H * K]: the targets' steps in order, in the scale of the inputs.
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import CellName, RecurrentLayers
from fdl.models.sequence import RecurrentNet
from fdl.types import Array, Count, Fact, Probability, Range, Whole

Horizon = Annotated[int, Range(0), Fact("horizon")]
"""Steps to forecast; 0: as many as the data's targets have."""
TargetColumns = Annotated[tuple[Whole, ...], Fact("target_columns")]
"""The places of the target columns among the inputs'; (): as the data say."""


def _targets(x_BxWxC: Array, places: tuple[int, ...]) -> Array:
    """Return the target columns [B, W, K]."""
    if not places:
        raise ValueError(
            "targets=() takes the target columns from the data: bind the model to it, or give their places"
        )
    return jnp.stack([x_BxWxC[..., place] for place in places], -1)


def _flat(y_BxHxK: Array) -> Array:
    return y_BxHxK.reshape(len(y_BxHxK), -1).astype(jnp.float32)


class LinearForecast(nn.Module):
    """One linear map from the window to the horizon, the same for every column (NLinear; Zeng et al. 2023,
    https://arxiv.org/abs/2205.13504): the window's last value is subtracted before and added after it.

    It begins at zero, as the forecast that repeats the last value.
    """

    targets: TargetColumns = ()
    horizon: Horizon = 0

    @nn.compact
    def __call__(self, x_BxWxC: Array, train: bool = False) -> Array:
        history = _targets(x_BxWxC, self.targets)
        last = history[:, -1:]
        horizon = layers.known(self.horizon, "horizon")
        dense = nn.Dense(horizon, kernel_init=nn.initializers.zeros, name="output")
        return _flat(dense((history - last).swapaxes(1, 2)).swapaxes(1, 2) + last)


class SegRNN(nn.Module):
    """A GRU over segments of the window, and all segments of the horizon at once (Lin et al. 2023,
    https://arxiv.org/abs/2308.11200).

    Every column is a sequence of its own, less its last value: its segments are mapped to vectors, a GRU reads them, and its
    last state makes one more step for each segment to forecast, whose input says which segment and which column it is.

    Attributes:
        segment: steps of a segment; window and horizon are multiples of it.
        width: units of the GRU.
        dropout: before the output.
    """

    targets: TargetColumns = ()
    horizon: Horizon = 0
    segment: Count = 48
    width: Count = 128
    dropout: Probability = 0.5

    @nn.compact
    def __call__(self, x_BxWxC: Array, train: bool = False) -> Array:
        history = _targets(x_BxWxC, self.targets)
        (batch, window, count), horizon = history.shape, layers.known(self.horizon, "horizon")
        if window % self.segment or horizon % self.segment:
            raise ValueError(f"segment={self.segment} must divide the window, {window}, and the horizon, {horizon}")
        last, ahead = history[:, -1:], horizon // self.segment
        segments = (history - last).swapaxes(1, 2).reshape(batch * count, -1, self.segment)
        x = nn.relu(nn.Dense(self.width, name="segments")(segments))
        gru = RecurrentLayers(cell="gru", width=self.width, name="gru")
        (state,) = gru(x)[1]  # [B * K, width]
        normal, half = nn.initializers.normal(1.0), self.width // 2
        step = self.param("step_embedding", normal, (ahead, half))[None]
        column = self.param("column_embedding", normal, (count, self.width - half))[:, None]
        shape = batch, count, ahead
        place = jnp.concatenate([jnp.broadcast_to(each[None], (*shape, each.shape[-1])) for each in (step, column)], -1)
        h, _ = gru(place.reshape(-1, 1, self.width), carry=(jnp.repeat(state, ahead, axis=0),))
        h = nn.Dropout(self.dropout, deterministic=not train)(h[:, 0])
        y = nn.Dense(self.segment, name="output")(h).reshape(batch, count, horizon)
        return _flat(y.swapaxes(1, 2) + last)


class RecurrentForecast(nn.Module):
    """Recurrent layers read all columns, and the last state gives the whole horizon; linear parts beside them.

    Attributes:
        cell, width, layers, dropout: of the recurrence, as of `fdl.models.RecurrentNet`.
        relative: the window's last value is subtracted from the target columns and added to the forecast.
        highway: a linear map of each target's last so many values is added, the same for every column (the autoregressive part
            of LSTNet; Lai et al. 2018, https://arxiv.org/abs/1703.07015); 0: none.
    """

    targets: TargetColumns = ()
    horizon: Horizon = 0
    cell: CellName = "lstm"
    width: Count = 64
    layers: Count = 1
    dropout: Probability = 0.0
    relative: bool = False
    highway: Whole = 0

    @nn.compact
    def __call__(self, x_BxWxC: Array, train: bool = False) -> Array:
        history = _targets(x_BxWxC, self.targets)
        horizon, last = layers.known(self.horizon, "horizon"), history[:, -1:]
        x = jnp.asarray(x_BxWxC)
        if self.relative:
            x, history = x.at[..., jnp.array(self.targets)].add(-last), history - last
        net = RecurrentNet(
            self.cell, self.width, self.layers, outputs=horizon * len(self.targets), dropout=self.dropout
        )
        nn.share_scope(self, net)  # its parameters are this module's own, by their names
        y = net(x, train).reshape(len(history), horizon, -1)
        if self.highway:
            near = history[:, -self.highway :].swapaxes(1, 2)
            y = y + nn.Dense(horizon, use_bias=False, name="highway")(near).swapaxes(1, 2)
        return _flat(y + last if self.relative else y)
