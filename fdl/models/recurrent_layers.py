"""Stacked recurrent layers, the module that every recurrent model shares; the equations are in `fdl.models.scans`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, scans
from fdl.types import Array, Count, DType, Initializer, Probability, Whole

CellName = Literal["lstm", "gru", "rnn", "rnn_relu", "min_gru"]
Carry = tuple[Any, ...]
"""One entry a layer (a pair of them, forward and backward, where bidirectional): (c, h) for the LSTM, h for the others, each
[B, H] in float32."""

_GATES: dict[CellName, int] = {"lstm": 4, "gru": 3, "rnn": 1, "rnn_relu": 1, "min_gru": 2}


def initial_carry(cell: CellName, batch_size: int, width: int, layers: int = 1, bidirectional: bool = False) -> Carry:
    """Return a state of zeros for every layer."""
    zeros = jnp.zeros((batch_size, width), jnp.float32)
    one: Any = (zeros, zeros) if cell == "lstm" else zeros
    return ((one, one) if bidirectional else one,) * layers


class Tokens(NamedTuple):
    """Tokens as the first layer's inputs: rows of a table, or one-hot.

    Attributes:
        numbers: [B, T], or [T, B] where time leads.
        size: how many different tokens there are, V.
        table: [V, E], or None: one-hot, which needs no table, for the kernel is one.
    """

    numbers: Array
    size: int
    table: Array | None = None


class RecurrentLayers(nn.Module):
    """Recurrent layers over time, [B, T, D] -> [B, T, H] (bidirectional: [B, T, 2H], forward first).

    Legend: B batch, T time steps, D inputs, H width, G gates' units.

    Parameters of layer n are "layern_input" [D, G], "layern_bias" [G], "layern_recurrent" [H, G] and, of the GRU,
    "layern_candidate_bias" [H]; those of the backward direction begin with "layern_backward_". They equal those of Flax's
    cells and torch.nn's layers with the gates side by side (i, f, g, o; r, z, n).

    Attributes:
        cell: "lstm", "gru", "rnn" (tanh), "rnn_relu", or "min_gru" (`fdl.models.scans.min_gru`).
        width: hidden units of each layer and direction, H.
        layers: how many, each reading the one below.
        bidirectional: each layer also runs from the end to the start.
        dropout: the share of inputs of a layer that are set to zero in training, and of the last layer's outputs (one-hot
            tokens have none): never between time steps (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329).
        variational: the same units are dropped at every time step of a row (Gal and Ghahramani 2016,
            https://arxiv.org/abs/1512.05287).
        weight_dropout: the share of recurrent weights set to zero in training, the same for all time steps (Merity et al.
            2018, https://arxiv.org/abs/1708.02182).
        forget_bias: start of the LSTM's forget-gate bias (Jozefowicz et al. 2015 advise 1; 0 is Flax's).
        longest: where above 0, the length in steps of the longest memory: the biases that decide how long the LSTM, the GRU
            and the minGRU remember start at +-log u with u uniform in [1, longest - 1] (chrono initialisation, Tallec and
            Ollivier 2018, https://arxiv.org/abs/1804.11188).
        initializer: of the input kernels; recurrent kernels start orthogonal, gate by gate.
        dtype: what is computed in; parameters and outputs are float32.
    """

    cell: CellName = "lstm"
    width: Count = 256
    layers: Count = 1
    bidirectional: bool = False
    dropout: Probability = 0.0
    variational: bool = False
    weight_dropout: Probability = 0.0
    forget_bias: float = 1.0
    longest: Whole = 0
    initializer: Initializer = "lecun"
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.weight_dropout and self.cell == "min_gru":
            raise ValueError('cell "min_gru" has no recurrent weights: leave weight_dropout at 0')
        if self.longest and (self.longest < 3 or self.cell in ("rnn", "rnn_relu")):
            raise ValueError("longest is for lstm, gru and min_gru, and at least 3 steps; leave it at 0 otherwise")
        super().__post_init__()

    @nn.nowrap
    def initial_carry(self, batch_size: int) -> Carry:
        """Return a state of zeros for every layer."""
        return initial_carry(self.cell, batch_size, self.width, self.layers, self.bidirectional)

    def __call__(
        self, inputs: Array | Tokens, mask_BxT: Array | None = None, carry: Carry | None = None, train: bool = False
    ) -> tuple[Array, Carry]:
        """Compute the last layer's states at every step, and the state of every layer after the last step.

        Args:
            inputs: [B, T, D], or tokens.
            mask_BxT: ones, and zeros on padding after them: a step without weight leaves the state as it is, so that
                outputs repeat the last state, and more padding changes no bit of what counts. None: every step counts.
            carry: the state to begin with; None: zeros.
            train: dropout acts; needs a "dropout" key.
        """
        # Time leads, so that each step of the scan reads one contiguous block.
        x = inputs._replace(numbers=inputs.numbers.T) if isinstance(inputs, Tokens) else jnp.swapaxes(inputs, 0, 1)
        h, ends = self.time_major(x, None if mask_BxT is None else mask_BxT.T[..., None], carry, train)
        return jnp.swapaxes(h, 0, 1), ends

    @nn.compact
    def time_major(
        self, inputs: Array | Tokens, mask_TxBx1: Array | None = None, carry: Carry | None = None, train: bool = False
    ) -> tuple[Array, Carry]:
        """Compute what `__call__` does, from [T, B, D] or tokens [T, B] to [T, B, H]."""
        dtype = jnp.dtype(self.dtype)
        x: Any = inputs if isinstance(inputs, Tokens) else inputs.astype(dtype)
        batch_size = (inputs.numbers if isinstance(inputs, Tokens) else inputs).shape[1]
        start = self.initial_carry(batch_size) if carry is None else carry
        start = jax.tree.map(lambda state: state.astype(dtype), start)
        drop = nn.Dropout(self.dropout, broadcast_dims=(0,) if self.variational else (), deterministic=not train)
        ends = []
        for layer in range(1, self.layers + 1):
            x = x if isinstance(x, Tokens) else drop(x)
            if self.bidirectional:
                there, back = start[layer - 1]
                forward, end_there = self._direction(f"layer{layer}", x, mask_TxBx1, there, train, drop, False)
                backward, end_back = self._direction(f"layer{layer}_backward", x, mask_TxBx1, back, train, drop, True)
                x, end = jnp.concatenate([forward, backward], axis=-1), (end_there, end_back)
            else:
                x, end = self._direction(f"layer{layer}", x, mask_TxBx1, start[layer - 1], train, drop, False)
            ends.append(jax.tree.map(lambda state: state.astype(jnp.float32), end))
        return drop(x), tuple(ends)

    def _direction(
        self, name: str, x: Any, mask: Array | None, state: Any, train: bool, drop: nn.Dropout, reverse: bool
    ) -> tuple[Array, Any]:
        """Run one layer one way: (h [T, B, H], the last state)."""
        dtype, units = jnp.dtype(self.dtype), _GATES[self.cell] * self.width
        size = x.shape[-1] if not isinstance(x, Tokens) else x.size if x.table is None else x.table.shape[-1]
        kernel = self.param(f"{name}_input", layers.initializer(self.initializer), (size, units)).astype(dtype)
        bias = self.param(f"{name}_bias", self._bias_init, (units,)).astype(dtype)
        # The products with the inputs do not recur: all time steps at once, before the scan.
        product = _look_up(x, kernel, bias[None], train and self.dropout > 0, drop) if isinstance(x, Tokens) else None
        product = x @ kernel + bias[None, None] if product is None else product
        if self.cell == "min_gru":
            return scans.min_gru(product, state, mask, reverse)
        recurrent = self.param(f"{name}_recurrent", self._recurrent_init, (self.width, units)).astype(dtype)
        if self.weight_dropout:
            recurrent = nn.Dropout(self.weight_dropout, deterministic=not train)(recurrent)
        if self.cell == "lstm":
            return scans.lstm(product, state, recurrent, mask, reverse)
        if self.cell == "gru":
            more = self.param(f"{name}_candidate_bias", nn.initializers.zeros, (self.width,)).astype(dtype)
            return scans.gru(product, state, recurrent, more, mask, reverse)
        return scans.rnn(product, state, recurrent, mask, reverse, "relu" if self.cell == "rnn_relu" else "tanh")

    @nn.nowrap
    def _recurrent_init(self, key: Array, shape: tuple[int, int]) -> Array:
        keys = jax.random.split(key, shape[1] // shape[0])
        orthogonal = nn.initializers.orthogonal()
        return jnp.concatenate([orthogonal(k, (shape[0], shape[0])) for k in keys], axis=1)

    @nn.nowrap
    def _bias_init(self, key: Array, shape: tuple[int]) -> Array:
        bias, width = jnp.zeros(shape), self.width
        if self.longest:
            memory = jnp.log(jax.random.uniform(key, (width,), minval=1.0, maxval=self.longest - 1.0))
            if self.cell == "lstm":
                return bias.at[:width].set(-memory).at[width : 2 * width].set(memory)
            # The GRU's second gate is the share kept, the minGRU's first the share replaced.
            return bias.at[width : 2 * width].set(memory) if self.cell == "gru" else bias.at[:width].set(-memory)
        return bias.at[width : 2 * width].set(self.forget_bias) if self.cell == "lstm" else bias


def _look_up(tokens: Tokens, kernel: Array, bias_1xG: Array, dropped: bool, drop: nn.Dropout) -> Array:
    """Compute the tokens' product with the kernel, and the bias, [T, B, G]."""
    numbers_TxB = tokens.numbers
    if tokens.table is None:
        return jnp.take(kernel + bias_1xG, numbers_TxB, axis=0)
    table = tokens.table.astype(kernel.dtype)
    if tokens.size <= tokens.numbers.size and not dropped:
        # There are fewer words than tokens: multiply each word once, then look the products up.
        return jnp.take(table @ kernel + bias_1xG, numbers_TxB, axis=0)
    return drop(jnp.take(table, numbers_TxB, axis=0)) @ kernel + bias_1xG[None]
