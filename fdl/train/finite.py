"""Whether a training step was finite, and what was not: part of the compiled step, at the cost of one pass over the gradient."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from fdl.models.ops import channel_sum
from fdl.tasks import losses
from fdl.types import Array, leaf_name

S = TypeVar("S")
WeightedSum = tuple[Array, Array | float]
"""(sum of value x weight, sum of weight), float32 scalars; their quotient is the mean. Sums add up over devices, batches
and steps, and are divided once, so padding and class weights are exact however the examples are spread."""


def check_finite(grads: object, loss: WeightedSum, bad_inputs: Array, loss_limit: float | None) -> tuple[Array, Array]:
    """Compute the gradient's norm, and 1 + the index of the first thing that is not finite (0: all are finite)."""
    squares = jnp.stack([_sum_of_squares(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(grads)])
    mean = losses.mean_of(*loss)
    good_loss = jnp.isfinite(mean)
    if loss_limit is not None:
        good_loss &= mean <= loss_limit
    good = jnp.concatenate([jnp.stack([bad_inputs == 0, good_loss]), jnp.isfinite(squares)])
    return jnp.sqrt(squares.sum()), jnp.where(good.all(), 0, 1 + jnp.argmin(good))


def _sum_of_squares(x: Array) -> Array:
    return channel_sum(jnp.square(x)).sum() if x.ndim > 1 else jnp.square(x).sum()


def keep_where_bad(old: S, new: S, first_bad: Array) -> S:
    """Return the old state where something was not finite, else the new one."""
    return jax.tree.map(lambda kept, made: jnp.where(first_bad > 0, kept, made), old, new)


def check_names(params: object) -> list[str]:
    """Name what `Metrics.first_bad` indexes: the inputs, the loss, then the gradient's leaves."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [leaf_name(path) for path, _ in paths]
    return ["an input", "the loss", *(f"the gradient of {name}" for name in names)]
