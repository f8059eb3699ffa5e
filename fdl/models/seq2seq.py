"""Translation with recurrent nets and attention.

Legend: B batch, S places of the source, T places of the target, E embedding, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import CellName, RecurrentLayers
from fdl.models.transformer import Translated
from fdl.types import Array, Count, Probability, VocabularySize


class AttentionTranslator(nn.Module):
    """A bidirectional encoder, and a decoder of two recurrent layers with attention between them.

    1. The encoder reads the source both ways: memory m_s [2H].
    2. The decoder's first layer reads the target tokens so far: h_t. It begins with a map of the memory's mean.
    3. Attention compares h_t with every m_s; c_t is the mean of the memory by the softmax of
       "additive": v . tanh(W h_t + U m_s) (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2), or
       "dot": (W h_t) . m_s / sqrt(2H) (Luong et al. 2015, https://arxiv.org/abs/1508.04025).
    4. The second layer reads (h_t, c_t): Nematus' conditional cell (Sennrich et al. 2017, https://arxiv.org/abs/1703.04357), in
       which attention needs no state of the step before it, so that in training all steps are computed at once.
    5. A projection to E is compared with the table of tokens, which source and target share (Press and Wolf 2017).

    Attributes:
        dropout: of embeddings, encoder and decoder (the same units at every step), and before the output.
    """

    vocabulary: VocabularySize = 0
    cell: CellName = "gru"
    embedding: Count = 128
    width: Count = 256
    encoder_layers: Count = 1
    attention: Literal["additive", "dot"] = "additive"
    dropout: Probability = 0.0

    def setup(self) -> None:
        known = layers.known(self.vocabulary, "vocabulary")
        start = nn.initializers.normal(self.embedding**-0.5)
        self.words = nn.Embed(known, self.embedding, embedding_init=start)
        self.encoder = RecurrentLayers(
            self.cell, self.width, self.encoder_layers, bidirectional=True, dropout=self.dropout, variational=True
        )
        self.first = RecurrentLayers(self.cell, self.width, dropout=self.dropout, variational=True)
        self.second = RecurrentLayers(self.cell, self.width, dropout=self.dropout, variational=True)
        self.begin = nn.Dense(self.width)
        if self.attention == "additive":
            self.query, self.key = nn.Dense(self.width, use_bias=False), nn.Dense(self.width)
            self.score = nn.Dense(1, use_bias=False)
        else:
            self.query = nn.Dense(2 * self.width, use_bias=False)
        self.project = nn.Dense(self.embedding)
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (known,))
        self.drop = nn.Dropout(self.dropout, broadcast_dims=(1,))

    def __call__(self, inputs: Mapping[str, Array], before_BxT: Array, train: bool = False) -> Array:
        """Compute logits [B, T, V] of each target token, given the source and the target tokens before each."""
        source = self.encode(inputs, train)
        return self._decode(source, before_BxT, self._initial(source), train)[0]

    def encode(self, inputs: Mapping[str, Array], train: bool = False) -> Translated:
        memory, _ = self.encoder(self.words(inputs["tokens"]), inputs["mask"], train=train)
        return Translated(memory, inputs["mask"][:, None] > 0)

    def start(self, source: Translated, length: int) -> Any:
        """Return the state before the first token: of both layers of the decoder."""
        return self._initial(source)

    def step(self, source: Translated, token_B: Array, state: Any) -> tuple[Array, Any]:
        """Compute the logits [B, V] after one more token, and the state."""
        logits, state = self._decode(source, token_B[:, None], state, False)
        return logits[:, 0], state

    def _initial(self, source: Translated) -> Any:
        counted = source.allowed.swapaxes(1, 2)
        mean = jnp.where(counted, source.memory, 0).sum(1) / jnp.maximum(counted.sum(1), 1)
        h = jnp.tanh(self.begin(mean))
        one: Any = (jnp.zeros_like(h), h) if self.cell == "lstm" else h
        return (one,), (one,)

    def _decode(self, source: Translated, before: Array, state: Any, train: bool) -> tuple[Array, Any]:
        first, second = state
        words = self.words(before)
        h, first = self.first(words, None, first, train)
        weights = self._attend(h, source)
        layers.show_map(self, "attention", weights)
        context = jnp.einsum("bts,bsd->btd", weights, source.memory)
        h, second = self.second(jnp.concatenate([h, context], -1), None, second, train)
        read = jnp.concatenate([h, context, self.drop(words, deterministic=not train)], -1)
        x = self.drop(jnp.tanh(self.project(read)), deterministic=not train)
        return self.words.attend(x) + self.output_bias[None, None], (first, second)

    def _attend(self, h: Array, source: Translated) -> Array:
        """Return weights [B, T, S]; of a source without any token, equal ones."""
        query = self.query(h)
        if self.attention == "additive":
            compared = jnp.tanh(query[:, :, None] + self.key(source.memory)[:, None])
            scores = self.score(compared)[..., 0]
        else:
            scores = jnp.einsum("btd,bsd->bts", query, source.memory) / np.float32(np.sqrt(2 * self.width))
        return nn.softmax(jnp.where(source.allowed, scores, -1e9), axis=-1)
