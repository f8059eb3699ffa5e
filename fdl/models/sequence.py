"""Recurrent layers over sequences of vectors, and the net that reads a sequence and gives one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, scans
from fdl.types import Array, Count, DType, Outputs, Probability, Whole

Cell = Literal["lstm", "gru", "rnn"]
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class RecurrentLayer(nn.Module):
    """One recurrence over [T, B, E], time first, to [T, B, width]; the equations are in `fdl.models.scans`.

    It begins with a state of zeros, or with h `start` [B, width].

    Attributes:
        reverse: read from the end to the beginning.
        forget_bias: start of the LSTM's forget-gate bias (Jozefowicz et al. 2015).
        longest: above 0, the LSTM's chrono initialisation (Tallec and Ollivier 2018, https://arxiv.org/abs/1804.11188, section
            3.1): forget biases log(uniform(1, longest - 1)), input biases their negatives; longest is the span of time to
            remember.
    """

    cell: Cell = "gru"
    width: Count = 128
    reverse: bool = False
    forget_bias: float = 1.0
    longest: Whole = 0
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x_TxBxE: Array, start: Array | None = None) -> Array:
        dtype, gates = jnp.dtype(self.dtype), _GATES[self.cell] * self.width
        kernel = self.param("input", nn.initializers.lecun_normal(), (x_TxBxE.shape[-1], gates)).astype(dtype)
        bias = self.param("bias", self._bias_init, (gates,)).astype(dtype)
        recurrent = self.param("recurrent", self._recurrent_init, (self.width, gates)).astype(dtype)
        x = x_TxBxE[::-1] if self.reverse else x_TxBxE
        product = x.astype(dtype) @ kernel + bias[None, None]
        zeros = jnp.zeros((x.shape[1], self.width), dtype)
        first = zeros if start is None else start.astype(dtype)
        if self.cell == "lstm":
            h, _ = scans.lstm(product, (zeros, first), recurrent)
        elif self.cell == "rnn":
            h, _ = scans.rnn(product, first, recurrent)
        else:
            candidate = self.param("candidate_bias", nn.initializers.zeros, (self.width,)).astype(dtype)
            h, _ = scans.gru(product, first, recurrent, candidate)
        return h[::-1] if self.reverse else h

    @nn.nowrap
    def _recurrent_init(self, key: Array, shape: tuple[int, int]) -> Array:
        orthogonal = nn.initializers.orthogonal()
        keys = jax.random.split(key, shape[1] // shape[0])
        return jnp.concatenate([orthogonal(each, (shape[0], shape[0])) for each in keys], axis=1)

    @nn.nowrap
    def _bias_init(self, key: Array, shape: tuple[int]) -> Array:
        bias = jnp.zeros(shape)
        if self.cell != "lstm":
            return bias
        forget = jnp.full((self.width,), self.forget_bias)
        if self.longest:
            forget = jnp.log(jax.random.uniform(key, (self.width,), minval=1.0, maxval=max(2.0, self.longest - 1.0)))
            bias = bias.at[: self.width].set(-forget)
        return bias.at[self.width : 2 * self.width].set(forget)


def pooled(x_BxTxE: Array, mask_BxT: Array) -> Array:
    """Return the mean and the maximum over the time steps whose mask is not 0, side by side, [B, 2 E]."""
    mask = mask_BxT[..., None]
    mean = (x_BxTxE * mask).sum(1) / jnp.maximum(mask.sum(1), 1)
    return jnp.concatenate([mean, jnp.where(mask > 0, x_BxTxE, -1e9).max(1)], -1)


class RecurrentNet(nn.Module):
    """Vectors over time [B, T, E] (further axes are flattened) to one vector [B, outputs].

    Given {"vectors": [B, T, E], "mask": [B, T]}, only time steps whose mask is not 0 count: they come first.

    Attributes:
        cell, width, forget_bias, longest: of every layer (`RecurrentLayer`).
        layers: each reads the one below.
        bidirectional: a second layer reads from the end, and the two are laid side by side.
        outputs: numbers to give; 0: as many as the data ask for.
        pool: what the output reads: the last state, or the mean and the maximum over time.
        dropout: the share of units set to zero in training, between the layers and before the output.
    """

    cell: Cell = "gru"
    width: Count = 128
    layers: Count = 1
    bidirectional: bool = False
    outputs: Outputs = 0
    pool: Literal["last", "mean_max"] = "last"
    dropout: Probability = 0.0
    forget_bias: float = 1.0
    longest: Whole = 0
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, inputs: Array | Mapping[str, Array], train: bool = False) -> Array:
        given = inputs if isinstance(inputs, Mapping) else {"vectors": inputs}
        x_BxTxE = given["vectors"].reshape(*given["vectors"].shape[:2], -1)
        mask = given.get("mask", jnp.ones(x_BxTxE.shape[:2]))
        x = x_BxTxE.swapaxes(0, 1)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for number in range(1, self.layers + 1):
            x = drop(self._layer(number, x))
        if self.pool == "mean_max":
            y = pooled(x.swapaxes(0, 1), mask)
        else:
            y = self._ends(x, mask)
        outputs = layers.known(self.outputs, "outputs")
        return nn.Dense(outputs, dtype=jnp.dtype(self.dtype), name="output")(y).astype(jnp.float32)

    @nn.nowrap
    def _ends(self, x_TxBxE: Array, mask_BxT: Array) -> Array:
        """Return the state after the last time step that counts; of a backward layer the one after the first."""
        last = jnp.maximum((mask_BxT > 0).sum(1), 1) - 1
        end = jnp.take_along_axis(x_TxBxE, last[None, :, None], axis=0)[0]
        return jnp.concatenate([end[:, : self.width], x_TxBxE[0, :, self.width :]], -1) if self.bidirectional else end

    def _layer(self, number: int, x: Array) -> Array:
        settings = {"forget_bias": self.forget_bias, "longest": self.longest, "dtype": self.dtype}
        h = RecurrentLayer(self.cell, self.width, name=f"layer{number}", **settings)(x)
        layers.show_map(self, f"layer{number}", h)
        if not self.bidirectional:
            return h
        back = RecurrentLayer(self.cell, self.width, reverse=True, name=f"layer{number}_back", **settings)(x)
        return jnp.concatenate([h, back], -1)
