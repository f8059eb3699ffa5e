"""A classifier of texts: words as vectors, read by a recurrent net, by convolutions, or as a bag; beside n-grams.

Legend: B batch, T words, E embedding, H what the reader makes of a word, G n-grams, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.models.recurrent_layers import CellName, RecurrentLayers
from fdl.types import Array, Count, Fact, Outputs, Probability, Range, VocabularySize


class TextClassifier(nn.Module):
    """Logits [B, K] of texts, from what `fdl.data.encoders.Vocabulary` makes of them. Padding has no weight.

    1. Words become vectors; in training whole words are dropped (Iyyer et al. 2015).
    2. The reader makes of each word a vector that knows its neighbours.
    3. The mean and the maximum over the words, side by side, are dropped out and mapped to the classes.
    4. Where the inputs have "ratios" (`fdl.data.class_ops.NaiveBayesRatios`), a linear model over n-grams is added. It starts
       as naive Bayes: each n-gram g adds s (1 + v_g) r_g, with v = 0 at first, so that weight decay pulls v back to naive
       Bayes, as the interpolation of NBSVM does (Wang and Manning 2012).

    Attributes:
        reader: "mean": none, a bag of words; "cnn": `width` filters over each of `windows` neighbouring words, and ReLU (Kim
            2014, https://arxiv.org/abs/1408.5882); else the cell of `fdl.models.recurrent_layers.RecurrentLayers`.
        vocabulary: how many words, 0: as many as the data have.
        outputs: classes.
        embedding: size of the words' vectors, E.
        width: units of each direction of a recurrent reader, filters of each window of a "cnn".
        layers, bidirectional, weight_dropout: of a recurrent reader.
        windows: of a "cnn".
        word_dropout: the share of words, and of n-grams, left out in training.
        dropout: of the words' vectors (the same units in every word) and before the output.
        buckets: numbers of n-grams; 0: as many as the encoder's.
        ngram_scale: s.
    """

    reader: Literal["mean", "cnn"] | CellName = "lstm"
    vocabulary: VocabularySize = 0
    outputs: Outputs = 0
    embedding: Count = 128
    width: Count = 128
    layers: Count = 1
    bidirectional: bool = True
    windows: tuple[Count, ...] = (3, 4, 5)
    word_dropout: Probability = 0.0
    dropout: Probability = 0.0
    weight_dropout: Probability = 0.0
    buckets: Annotated[int, Range(0), Fact("buckets")] = 0
    ngram_scale: float = 0.15

    def setup(self) -> None:
        vocabulary = layers.known(self.vocabulary, "vocabulary")
        self.words = nn.Embed(vocabulary, self.embedding, embedding_init=nn.initializers.normal(0.1))
        self.output = nn.Dense(layers.known(self.outputs, "outputs"))
        self.drop_words = nn.Dropout(self.word_dropout, broadcast_dims=(-1,))
        self.drop_units = nn.Dropout(self.dropout, broadcast_dims=(-2,))
        self.drop = nn.Dropout(self.dropout)
        if self.reader == "cnn":
            self.filters = [nn.Dense(self.width, name=f"window{size}") for size in self.windows]
        elif self.reader != "mean":
            self.recurrent = RecurrentLayers(
                self.reader, self.width, self.layers, self.bidirectional, self.dropout, True, self.weight_dropout
            )
        self.ngrams = nn.Embed(self.buckets, 1, embedding_init=nn.initializers.zeros)

    def __call__(self, inputs: Mapping[str, Array], train: bool = False) -> Array:
        return self.classify(self.embed(inputs, train), inputs["mask"], train)

    def embed(self, inputs: Mapping[str, Array], train: bool = False) -> dict[str, Array]:
        """Look up the words' vectors [B, T, E] and the n-grams' shares of the logits [B, G, K]; `classify` reads them."""
        still = not train
        found = {"words": self.drop_words(self.words(inputs["tokens"]), deterministic=still)}
        if "ratios" in inputs:
            layers.known(self.buckets, "buckets")
            shares = self.ngram_scale * (1 + self.ngrams(inputs["ngrams"])) * inputs["ratios"]
            found["ngrams"] = self.drop_words(shares, deterministic=still)
        return found

    def classify(self, embedded: Mapping[str, Array], mask_BxT: Array, train: bool = False) -> Array:
        """Compute logits [B, K] from what `embed` found."""
        mask = mask_BxT[..., None]
        x = embedded["words"] * mask
        if self.reader in ("mean", "cnn"):
            x = self.drop_units(x, deterministic=not train)
            if self.reader == "cnn":
                read = zip(self.filters, self.windows, strict=True)
                x = jnp.concatenate([nn.relu(dense(neighbours(x, size))) for dense, size in read], -1)
            pooled = self.drop(pool(x, mask), deterministic=not train)
        else:  # which drops units of what it reads and of what it says itself
            pooled = pool(self.recurrent(x, mask_BxT, train=train)[0], mask)
        logits = self.output(pooled)
        return logits + embedded["ngrams"].sum(1) if "ngrams" in embedded else logits


def neighbours(x_BxTxE: Array, size: int) -> Array:
    """Put each word's vector and those of the `size` - 1 words after it side by side, [B, T, size * E], zeros after the last."""
    time = x_BxTxE.shape[1]
    padded = jnp.pad(x_BxTxE, ((0, 0), (0, size - 1), (0, 0)))
    return jnp.concatenate([padded[:, place : place + time] for place in range(size)], axis=-1)


def pool(x_BxTxH: Array, mask_BxTx1: Array) -> Array:
    """Return the mean and the maximum over the words, side by side, [B, 2H]: zeros where there is no word."""
    counted = mask_BxTx1 != 0
    mean = jnp.where(counted, x_BxTxH, 0).sum(1) / jnp.maximum(counted.sum(1), 1)
    largest = jnp.where(counted, x_BxTxH, -jnp.inf).max(1)
    return jnp.concatenate([mean, jnp.where(counted.any(1), largest, 0)], axis=-1)
