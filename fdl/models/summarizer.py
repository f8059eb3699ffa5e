"""A net that scores the sentences of an article, each in the light of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import CellName, RecurrentLayers
from fdl.types import Array, Count, Fact, Probability, Range, Whole


class SentenceScorer(nn.Module):
    """Sentences {"words": [B, S, W], "weights": [B, S, W], "features": [B, S, F]} to a logit each, [B, S].

    A sentence is the weighted sum of its words' vectors and what is measured of it; a bidirectional recurrence reads the
    sentences in order (SummaRuNNer; Nallapati et al. 2017, https://arxiv.org/abs/1611.04230).

    Attributes:
        buckets: of hashed words; 0: as many as the data have.
        embedding: size of the words' vectors; 0: what is measured alone.
        width: units of the layer before the recurrence, and of each of its directions.
        dropout: before the recurrence and before the output.
    """

    buckets: Annotated[int, Range(0), Fact("buckets")] = 0
    embedding: Whole = 32
    cell: CellName = "gru"
    width: Count = 64
    dropout: Probability = 0.3

    @nn.compact
    def __call__(self, inputs: Mapping[str, Array], train: bool = False) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        real = (inputs["words"] > 0).any(-1)
        x = inputs["features"]
        if self.embedding:
            shape = (layers.known(self.buckets, "buckets"), self.embedding)
            table = self.param("words", nn.initializers.normal(0.1), shape)
            vectors = jnp.take(table, inputs["words"], axis=0)
            x = jnp.concatenate([x, jnp.einsum("bsw,bswe->bse", inputs["weights"], vectors)], -1)
        x = drop(nn.relu(nn.Dense(self.width, name="sentences")(x)))
        layer = RecurrentLayers(cell=self.cell, width=self.width, bidirectional=True, name="recurrent")
        h, _ = layer(x, real.astype(jnp.float32))
        return nn.Dense(1, name="output")(drop(jnp.concatenate([x, h], -1)))[..., 0].astype(jnp.float32)
