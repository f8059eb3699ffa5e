"""The Transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised before each part.

Encoder, decoder and language model of the same two parts, x + part(norm(x)) (Xiong et al. 2020,
https://arxiv.org/abs/2002.04745), with a norm after the last layer, as torch.nn's layers have it with `norm_first=True`.

Legend: B batch, T places of a row, S places that are looked at, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models import layers
from fdl.types import Activation, Array, Count, Probability, VocabularySize

Cache = tuple[Array, Array]
"""Keys and values of the places so far, [B, S, D] each: those after the present one are not looked at."""


class Attention(nn.Module):
    """Scaled dot products of queries [B, T, D] with S places of `memory`, in `heads` parts of D / heads each."""

    heads: Count
    dropout: Probability = 0.0

    def setup(self) -> None:
        self.drop = nn.Dropout(self.dropout)

    @nn.compact
    def __call__(
        self, x: Array, memory: Array, allowed: Array, train: bool = False, cache: Cache | None = None, place: Any = 0
    ) -> tuple[Array, Cache]:
        """Return what was attended to, [B, T, D], and the keys and values.

        Args:
            allowed: bool, broadcast against [B, T, S]: which places each may look at. One at least in each row.
            cache: keys and values of earlier calls, into which those of `memory` are written from `place` on.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"a width of {width} cannot be cut into {self.heads} heads: choose a divisor")
        dense = {name: nn.Dense(width, kernel_init=nn.initializers.xavier_uniform(), name=name) for name in
                 ("query", "key", "value", "output")}  # fmt: skip
        query, key, value = dense["query"](x), dense["key"](memory), dense["value"](memory)
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
                for old, new in zip(cache, (key, value), strict=True)
            )
        split = [part.reshape(*part.shape[:2], self.heads, -1) for part in (query, key, value)]
        scores = jnp.einsum("bthd,bshd->bhts", split[0], split[1]) / np.sqrt(width // self.heads).astype(np.float32)
        weights = jax.nn.softmax(jnp.where(allowed[:, None], scores, -1e9), axis=-1)
        weights = self.drop(weights, deterministic=not train)
        layers.show_map(self, "weights", weights)
        found = jnp.einsum("bhts,bshd->bthd", weights, split[2]).reshape(*x.shape[:2], width)
        return dense["output"](found), (key, value)


class FeedForward(nn.Module):
    """D -> `hidden` -> D at each place."""

    hidden: Count
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        hidden = layers.activation(self.activation)(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(x.shape[-1], name="output")(nn.Dropout(self.dropout, deterministic=not train)(hidden))


class Layer(nn.Module):
    """Self-attention; attention to a memory, where there is one; feed-forward. Each normalised before and added to x."""

    heads: Count
    hidden: Count
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @nn.compact
    def __call__(
        self, x: Array, allowed: Array, memory: Array | None = None, memory_allowed: Array | None = None,
        train: bool = False, cache: Cache | None = None, place: Any = 0,
    ) -> tuple[Array, Cache]:  # fmt: skip
        drop = nn.Dropout(self.dropout, deterministic=not train)
        seen = nn.LayerNorm(epsilon=1e-5, name="attention_norm")(x)
        found, cache = Attention(self.heads, self.dropout, name="attention")(seen, seen, allowed, train, cache, place)
        x = x + drop(found)
        if memory is not None and memory_allowed is not None:
            asked = nn.LayerNorm(epsilon=1e-5, name="memory_norm")(x)
            found, _ = Attention(self.heads, self.dropout, name="memory_attention")(
                asked, memory, memory_allowed, train
            )
            x = x + drop(found)
        fed = nn.LayerNorm(epsilon=1e-5, name="feed_norm")(x)
        return x + drop(FeedForward(self.hidden, self.activation, self.dropout, name="feed")(fed, train)), cache


class Stack(nn.Module):
    """`layers` of `Layer` and a norm: an encoder, a decoder (given a memory) or a causal model (given `allowed`)."""

    layers: Count
    heads: Count
    hidden: Count
    activation: Activation = "relu"
    dropout: Probability = 0.0

    @nn.compact
    def __call__(
        self, x: Array, allowed: Array, memory: Array | None = None, memory_allowed: Array | None = None,
        train: bool = False, caches: tuple[Cache, ...] | None = None, place: Any = 0,
    ) -> tuple[Array, tuple[Cache, ...]]:  # fmt: skip
        kept = []
        for number in range(self.layers):
            layer = Layer(self.heads, self.hidden, self.activation, self.dropout, name=f"layer{number + 1}")
            x, cache = layer(x, allowed, memory, memory_allowed, train, caches[number] if caches else None, place)
            kept.append(cache)
        return nn.LayerNorm(epsilon=1e-5, name="norm")(x), tuple(kept)


def causal(length: int) -> Array:
    """Return bool [1, T, T]: each place may look at itself and those before it."""
    return jnp.tril(jnp.ones((length, length), bool))[None]


def positions(length: int, width: int) -> np.ndarray:
    """Compute sines and cosines of the places, float32 [T, D]: section 3.5, the sines first, then the cosines."""
    rates = np.exp(-np.log(10_000) * np.arange(width // 2) / max(1, width // 2))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros((length, width % 2))], 1).astype(np.float32)


class CausalTransformer(nn.Module):
    """A language model: tokens [B, T] in, the logits [B, T, V] of each next token out.

    Attributes:
        context: the most tokens it can look back at; each place has its own vector, learnt.
    """

    vocabulary: VocabularySize = 0
    context: Count = 512
    width: Count = 128
    layers: Count = 4
    heads: Count = 4
    hidden: Count = 512
    dropout: Probability = 0.0

    def setup(self) -> None:
        start = nn.initializers.normal(0.02)
        self.words = nn.Embed(layers.known(self.vocabulary, "vocabulary"), self.width, embedding_init=start)
        self.places = self.param("places", start, (self.context, self.width))
        self.stack = Stack(self.layers, self.heads, self.hidden, "gelu", self.dropout)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, tokens_BxT: Array, train: bool = False) -> Array:
        time = tokens_BxT.shape[1]
        if time > self.context:
            raise ValueError(
                f"rows of {time} tokens are longer than context={self.context}: raise model.context, or cut shorter rows "
                "(data.load.length and data.load.eval_length of a text)"
            )
        x = self._embed(tokens_BxT, self.places[:time], train)
        x, _ = self.stack(x, causal(time), train=train)
        return self.words.attend(x)

    def _embed(self, tokens: Array, places: Array, train: bool) -> Array:
        return self.drop(self.words(tokens) + places[None], deterministic=not train)

    @nn.nowrap
    def initial_carry(self, batch_size: int) -> Any:
        """Return (the tokens so far [B, context], how many there are): none."""
        return jnp.zeros((batch_size, self.context), jnp.int32), jnp.zeros((), jnp.int32)

    def with_carry(self, tokens_BxT: Array, carry: Any) -> tuple[Array, Any]:
        """Compute the logits [B, 1, V] after the tokens so far and these; the oldest beyond `context` are forgotten."""
        held, count = carry
        time = tokens_BxT.shape[1]
        joined = jnp.concatenate([held, tokens_BxT.astype(jnp.int32)], axis=1)
        total = count + time
        first = jnp.maximum(0, total - self.context)
        # The first `count` of `held` are tokens; behind them come the new ones.
        source = jnp.arange(self.context) + first
        source = jnp.where(source < count, source, source - count + self.context)
        held = jnp.take(joined, jnp.clip(source, 0, joined.shape[1] - 1), axis=1)
        count = jnp.minimum(total, self.context)
        logits = self(held)
        return jax.lax.dynamic_slice_in_dim(logits, count - 1, 1, axis=1), (held, count)


class Translated(NamedTuple):
    """What a decoder looks at: the source as encoded [B, S, D], and which of its places are no padding [B, 1, S]."""

    memory: Array
    allowed: Array


class TranslationTransformer(nn.Module):
    """Encoder and decoder over one vocabulary, its table shared by source, target and output (Press and Wolf 2017).

    Attributes:
        longest: the most places of a source or a target.
        encoder_layers, decoder_layers: of `Layer`.
        dropout: of embeddings, attention weights, hidden units and each part's result.
    """

    vocabulary: VocabularySize = 0
    longest: Count = 128
    width: Count = 128
    encoder_layers: Count = 4
    decoder_layers: Count = 4
    heads: Count = 4
    hidden: Count = 256
    dropout: Probability = 0.0

    def setup(self) -> None:
        start = nn.initializers.normal(self.width**-0.5)
        self.words = nn.Embed(layers.known(self.vocabulary, "vocabulary"), self.width, embedding_init=start)
        self.encoder = Stack(self.encoder_layers, self.heads, self.hidden, "relu", self.dropout)
        self.decoder = Stack(self.decoder_layers, self.heads, self.hidden, "relu", self.dropout)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, inputs: Mapping[str, Array], before_BxT: Array, train: bool = False) -> Array:
        """Compute logits [B, T, V] of each target token, given the source and the target tokens before each."""
        source = self.encode(inputs, train)
        x = self._embed(before_BxT, positions(before_BxT.shape[1], self.width), train)
        x, _ = self.decoder(x, causal(before_BxT.shape[1]), source.memory, source.allowed, train)
        return self.words.attend(x)

    def _embed(self, tokens: Array, places: Array | np.ndarray, train: bool) -> Array:
        x = self.words(tokens) * np.float32(self.width**0.5) + places[None]
        return self.drop(x, deterministic=not train)

    def encode(self, inputs: Mapping[str, Array], train: bool = False) -> Translated:
        tokens = inputs["tokens"]
        allowed = inputs["mask"][:, None] > 0
        x = self._embed(tokens, positions(tokens.shape[1], self.width), train)
        return Translated(self.encoder(x, allowed, train=train)[0], allowed)

    def start(self, source: Translated, length: int) -> Any:
        """Return the state before the first token of `length` at most: the place, and empty caches."""
        empty = jnp.zeros((len(source.memory), length, self.width))
        return jnp.zeros((), jnp.int32), ((empty, empty),) * self.decoder_layers

    def step(self, source: Translated, token_B: Array, state: Any) -> tuple[Array, Any]:
        """Compute the logits [B, V] after one more token, and the state."""
        place, caches = state
        length = caches[0][0].shape[1]
        where = jax.lax.dynamic_slice_in_dim(jnp.asarray(positions(length, self.width)), place, 1)
        x = self._embed(token_B[:, None], where, False)
        allowed = (jnp.arange(length) <= place)[None, None]
        x, caches = self.decoder(x, allowed, source.memory, source.allowed, False, caches, place)
        return self.words.attend(x)[:, 0], (place + 1, caches)
