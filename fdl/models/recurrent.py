"""The recurrent language model."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import Carry, CellName, RecurrentLayers, Tokens, initial_carry
from fdl.types import Array, Count, DType, Initializer, Probability, VocabularySize, Whole


class Recurrent(nn.Module):
    """Tokens in, the logits of each next token out, through `fdl.models.recurrent_layers.RecurrentLayers`.

    Legend: B batch, T time steps, V vocabulary, E embedding, H width.

    Attributes:
        vocabulary: number of tokens, V; 0: as many as the data have.
        embedding: size of the tokens' vectors, E; 0 gives the first layer the tokens one-hot, which needs no table.
        tie_embeddings: use the embedding table as the output kernel (Press and Wolf 2017); needs `embedding` = `width`.
        dropout: of the embedding, between the layers and before the output.
        initializer: of the input kernels and the output.
        cell, width, layers, forget_bias, dtype, variational, weight_dropout: as of `RecurrentLayers`.
    """

    cell: CellName = "lstm"
    vocabulary: VocabularySize = 0
    width: Count = 256
    layers: Count = 1
    embedding: Whole = 0
    tie_embeddings: bool = False
    dropout: Probability = 0.0
    forget_bias: float = 1.0
    initializer: Initializer = "lecun"
    dtype: DType = "float32"
    variational: bool = False
    weight_dropout: Probability = 0.0

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
        return initial_carry(self.cell, batch_size, self.width, self.layers)

    @nn.compact
    def with_carry(self, tokens_BxT: Array, carry: Carry, train: bool = False) -> tuple[Array, Carry]:
        """Compute logits [B, T, V] and the state after the last token, for sampling token by token:

        `logits, carry = model.apply(variables, tokens, carry, method="with_carry")`
        """
        layers.known(self.vocabulary, "vocabulary")
        dtype = jnp.dtype(self.dtype)
        table = None
        if self.embedding:
            shape = (self.vocabulary, self.embedding)
            table = self.param("embedding", nn.initializers.normal(1.0), shape).astype(dtype)
        recurrent = RecurrentLayers(
            cell=self.cell, width=self.width, layers=self.layers, dropout=self.dropout, variational=self.variational,
            weight_dropout=self.weight_dropout, forget_bias=self.forget_bias, initializer=self.initializer,
            dtype=self.dtype,
        )  # fmt: skip
        nn.share_scope(self, recurrent)  # its parameters are this module's own, by their names
        x, ends = recurrent.time_major(Tokens(tokens_BxT.T, self.vocabulary, table), None, carry, train)
        if self.tie_embeddings and table is not None:
            bias_V = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))
            logits = x @ table.T + bias_V.astype(dtype)[None, None]
        else:
            kernel_init = layers.initializer(self.initializer)
            logits = nn.Dense(self.vocabulary, kernel_init=kernel_init, dtype=dtype, name="output")(x)
        return logits.transpose(1, 0, 2).astype(jnp.float32), ends
