"""Grey pictures as samples of black and white ones, for models whose likelihood is of 0 and 1."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fdl.data.pictures import white
from fdl.data.splits import Op, Statistics
from fdl.types import Array, Batch, Draw


@dataclasses.dataclass(frozen=True)
class Binarize(Op):
    """Inputs [B, ...] to float32 0 or 1: a pixel is 1 with the probability of its brightness.

    Among `Data.augment` the pixels are drawn anew at every step ("dynamic binarisation", Burda et al. 2016,
    https://arxiv.org/abs/1509.00519). Among `Data.prepare` the draw is a function of the picture alone, the same in every
    run and on every device ("static"); on inputs that are 0 or 1 it changes nothing. So dynamic training with an
    evaluation that does not vary has it in both places, static training in `prepare` alone.
    """

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        x = batch["inputs"]
        uniform = draw(x.shape[1:]) if draw else _uniform_of(x)
        return {**batch, "inputs": (uniform < x.astype(jnp.float32) / white(x.dtype)).astype(jnp.float32)}


def _uniform_of(x: Array) -> Array:
    """Draw numbers in [0, 1) of x's shape, keyed by each row's own content."""
    flat = x.reshape(len(x), -1)
    # Odd numbers: all bits count.
    places = jnp.arange(1, 2 * flat.shape[1], 2, dtype=jnp.uint32) * jnp.uint32(2654435761)
    digests = ((flat.astype(jnp.float32) * 255).astype(jnp.uint32) * places[None]).sum(1, dtype=jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), digests)
    return jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
