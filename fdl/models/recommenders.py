"""Recommenders: factors of users and items, two towers, and an autoencoder of users.

Legend: B batch, U users, I items.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
from flax import linen as nn

from fdl.models import layers
from fdl.types import Activation, Array, Count, Fact, Positive, Probability, Range

Users = Annotated[int, Range(0), Fact("users")]
Items = Annotated[int, Range(0), Fact("items")]


class BiasedFactors(nn.Module):
    """A rating as bias of the user + bias of the item + product of their factors (Koren, Bell and Volinsky 2009, equation 4).

    Attributes:
        users, items: how many there are; 0: as many as the data have.
        width: factors of each.
        scale: the standard deviation of the first factors.
    """

    users: Users = 0
    items: Items = 0
    width: Count = 16
    scale: Positive = 0.1

    @nn.compact
    def __call__(self, pair: Any, train: bool = False) -> dict[str, Array]:
        """Compute {"user": int [B], "item": int [B]} -> "rating" [B], and the squared norms "biases" and "factors" [B]."""
        biases, factors = [], []
        for name, size in (("user", self.users), ("item", self.items)):
            size = layers.known(size, f"{name}s")
            bias = nn.Embed(size, 1, embedding_init=nn.initializers.zeros, name=f"{name}_bias")
            factor = nn.Embed(
                size, self.width, embedding_init=nn.initializers.normal(self.scale), name=f"{name}_factors"
            )
            biases.append(bias(pair[name])[:, 0])
            factors.append(factor(pair[name]))
        return {
            "rating": biases[0] + biases[1] + (factors[0] * factors[1]).sum(-1),
            "biases": jnp.square(biases[0]) + jnp.square(biases[1]),
            "factors": jnp.square(factors[0]).sum(-1) + jnp.square(factors[1]).sum(-1),
        }


class HistoryAutoencoder(nn.Module):
    """A score for every item from the items that a user has (Liang et al. 2018, https://arxiv.org/abs/1802.05814, Mult-DAE).

    The history is scaled to length 1, and in training a random share of it is left out: what was left out is to be found.

    Attributes:
        outputs: the number of items, I; 0: as many as the data have.
        widths: units of the hidden layers.
        masked: the share of a history that is left out in training.
        activation: of the hidden layers.
    """

    outputs: Items = 0
    widths: tuple[Count, ...] = (200,)
    masked: Probability = 0.5
    activation: Activation = "tanh"

    @nn.compact
    def __call__(self, history: Array, train: bool = False) -> Array:
        """Compute uint8 [B, I] -> scores [B, I]; needs a "dropout" key where `train`."""
        x = _masked(history, self.masked, train)
        for number, width in enumerate(self.widths, 1):
            x = nn.Dense(width, kernel_init=nn.initializers.xavier_uniform(), name=f"dense{number}")(x)
            x = layers.activation(self.activation)(x)
        return nn.Dense(
            layers.known(self.outputs, "outputs"), kernel_init=nn.initializers.xavier_uniform(), name="output"
        )(x)


class TwoTowers(nn.Module):
    """One tower makes a vector of a user's history, the other one of each item; a score is their product plus the item's bias.

    The item vectors do not depend on the user and can be kept, so that finding the best items is a search for neighbours
    (Covington, Adams and Sargin 2016). The catalogue is small: training scores all items instead of a sample.

    Attributes:
        items: how many there are, I; 0: as many as the data have.
        embedding: numbers of an item's learnt vector, which both towers start from.
        width: of the vectors that are multiplied.
        masked: the share of a history that is left out in training.
        dropout: of the user tower's hidden units.
    """

    items: Items = 0
    embedding: Count = 64
    width: Count = 64
    masked: Probability = 0.5
    dropout: Probability = 0.0

    @nn.compact
    def __call__(self, history: Array, train: bool = False) -> Array:
        """Compute uint8 [B, I] -> scores [B, I]; needs a "dropout" key where `train`."""
        items = layers.known(self.items, "items")
        table = self.param("embedding", nn.initializers.normal(0.1), (items, self.embedding))
        x = nn.tanh(nn.Dense(2 * self.width, name="user1")(_masked(history, self.masked, train) @ table))
        user = nn.Dense(self.width, name="user2")(nn.Dropout(self.dropout, deterministic=not train)(x))
        item = nn.Dense(self.width, name="item2")(nn.tanh(nn.Dense(2 * self.width, name="item1")(table)))
        return user @ item.T + self.param("bias", nn.initializers.zeros, (items,))[None]


def _masked(history: Array, share: float, train: bool) -> Array:
    """Scale histories [B, I] to length 1; leave out a random share of each in training."""
    x = history.astype(jnp.float32)
    x = x / jnp.sqrt(jnp.maximum(x.sum(-1, keepdims=True), 1))
    return nn.Dropout(share, deterministic=not train)(x) if share else x
