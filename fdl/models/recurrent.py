"""The recurrent language model: RNN, GRU or LSTM."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers, scans
from fdl.types import Array, Count, DType, Initializer, Probability, VocabularySize, Whole

Carry = tuple[Any, ...]
"""One entry a layer: (c, h) for the LSTM, h for the others, each [B, width] in float32."""

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Recurrent(nn.Module):
    """Tokens in, the logits of each next token out; the equations are in `fdl.models.scans`.

    Legend: B batch, T time steps, V vocabulary, E embedding, H width.

    Dropout is applied where nothing recurs: to the embedding (one-hot tokens have none), between the layers and before
    the output (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329).

    Attributes:
        cell: which recurrence.
        vocabulary: number of tokens, V; 0: as many as the data have.
        width: hidden units of each layer, H.
        layers: recurrent layers, each reading the one below.
        embedding: size of the tokens' vectors, E; 0 gives the first layer the tokens one-hot, which needs no table.
        tie_embeddings: use the embedding table as the output kernel (Press and Wolf 2017); needs `embedding` = `width`.
        dropout: the share of units set to zero in training.
        forget_bias: start of the LSTM's forget-gate bias (Jozefowicz et al. 2015 advise 1; 0 is Flax's).
        initializer: of the input kernels and the output; recurrent kernels start orthogonal, gate by gate.
        dtype: what is computed in; parameters and outputs are float32.
    """

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    vocabulary: VocabularySize = 0
    width: Count = 256
    layers: Count = 1
    embedding: Whole = 0
    tie_embeddings: bool = False
    dropout: Probability = 0.0
    forget_bias: float = 1.0
    initializer: Initializer = "lecun"
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.tie_embeddings and self.embedding != self.width:
            raise ValueError(
                f"tie_embeddings needs embedding = width, not embedding={self.embedding} and width={self.width}"
            )
        super().__post_init__()

    def __call__(self, tokens_BxT: Array, train: bool = False) -> Array:
        """Compute logits [B, T, V] of the token after each, from a state of zeros; needs a "dropout" key in training."""
        return self.with_carry(tokens_BxT, self.initial_carry(tokens_BxT.shape[0]), train)[0]

    @nn.nowrap
    def initial_carry(self, batch_size: int) -> Carry:
        """Return a state of zeros for every layer."""
        zeros = jnp.zeros((batch_size, self.width), jnp.float32)
        return tuple((zeros, zeros) if self.cell == "lstm" else zeros for _ in range(self.layers))

    @nn.compact
    def with_carry(self, tokens_BxT: Array, carry: Carry, train: bool = False) -> tuple[Array, Carry]:
        """Compute logits [B, T, V] and the state after the last token, for sampling token by token:

        `logits, carry = model.apply(variables, tokens, carry, method="with_carry")`
        """
        layers.known(self.vocabulary, "vocabulary")
        dtype = jnp.dtype(self.dtype)
        kernel_init = layers.initializer(self.initializer)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        tokens_TxB = tokens_BxT.T  # time leads, so that each step of the scan reads one contiguous block
        table = None
        if self.embedding:
            shape = (self.vocabulary, self.embedding)
            table = self.param("embedding", nn.initializers.normal(1.0), shape).astype(dtype)
        x, ends = jnp.zeros(()), []  # x: what the layer below hands up; the first layer reads the tokens
        for layer in range(1, self.layers + 1):
            size = self.width if layer > 1 else self.embedding or self.vocabulary
            gates = _GATES[self.cell] * self.width
            kernel = self.param(f"layer{layer}_input", kernel_init, (size, gates)).astype(dtype)
            bias_1xG = self.param(f"layer{layer}_bias", self._bias_init, (gates,)).astype(dtype)[None]
            # The products with the inputs do not recur: all time steps at once, before the scan.
            if layer > 1:
                product = x @ kernel + bias_1xG[None]
            elif table is None:
                product = jnp.take(kernel + bias_1xG, tokens_TxB, axis=0)
            elif self.vocabulary <= tokens_BxT.size and not (train and self.dropout):
                # There are fewer words than tokens: multiply each word once, then look the products up.
                product = jnp.take(table @ kernel + bias_1xG, tokens_TxB, axis=0)
            else:
                product = drop(jnp.take(table, tokens_TxB, axis=0)) @ kernel + bias_1xG[None]
            start = jax.tree.map(lambda state: state.astype(dtype), carry[layer - 1])
            x, end = self._recur(layer, product, start)
            ends.append(jax.tree.map(lambda state: state.astype(jnp.float32), end))
            x = drop(x)
        if self.tie_embeddings and table is not None:
            bias_V = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))
            logits = x @ table.T + bias_V.astype(dtype)[None, None]
        else:
            logits = nn.Dense(self.vocabulary, kernel_init=kernel_init, dtype=dtype, name="output")(x)
        return logits.transpose(1, 0, 2).astype(jnp.float32), tuple(ends)

    def _recur(self, layer: int, x_TxBxG: Array, carry: Any) -> tuple[Array, Any]:
        kernel = self.param(
            f"layer{layer}_recurrent", self._recurrent_init, (self.width, _GATES[self.cell] * self.width)
        ).astype(x_TxBxG.dtype)
        if self.cell == "lstm":
            return scans.lstm(x_TxBxG, carry, kernel)
        if self.cell == "rnn":
            return scans.rnn(x_TxBxG, carry, kernel)
        bias = self.param(f"layer{layer}_candidate_bias", nn.initializers.zeros, (self.width,))
        return scans.gru(x_TxBxG, carry, kernel, bias.astype(x_TxBxG.dtype))

    @nn.nowrap
    def _recurrent_init(self, key: Array, shape: tuple[int, int]) -> Array:
        keys = jax.random.split(key, shape[1] // shape[0])
        orthogonal = nn.initializers.orthogonal()
        return jnp.concatenate([orthogonal(k, (shape[0], shape[0])) for k in keys], axis=1)

    @nn.nowrap
    def _bias_init(self, key: Array, shape: tuple[int]) -> Array:
        bias = jnp.zeros(shape)
        return bias.at[self.width : 2 * self.width].set(self.forget_bias) if self.cell == "lstm" else bias
