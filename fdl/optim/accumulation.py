"""Gradient accumulation: one update for several steps, by the mean of their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fdl.types import Array


class AccumulationState(NamedTuple):
    """The number of gradients `taken` (int32) since the last update, their `weight` together, and their weighted `mean`."""

    taken: Array
    weight: Array
    mean: Any
    inner: Any


def accumulate_gradients(transform: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """Make one update in `steps` calls of `update`, by the mean of their gradients; the other calls return 0.

    The mean is weighted by `loss_weight`, which the training step passes: what its loss was divided by (examples, tokens that are
    not padding, class weights). So `steps` batches make the gradient of one large batch, however unequal they are.
    Unlike `optax.MultiSteps` it computes the update only when it is due, and counts only steps whose state is kept: a
    skipped step is replaced by the next one.
    """
    inner = optax.with_extra_args_support(transform)

    def init(params: Any) -> AccumulationState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AccumulationState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), zeros, inner.init(params))

    def update(
        grads: Any, state: AccumulationState, params: Any = None, *, loss_weight: Array | float = 1.0, **extra: Any
    ) -> tuple[Any, Any]:
        weight = state.weight + loss_weight
        share = jnp.where(weight > 0, loss_weight / weight, 0)
        mean = jax.tree.map(lambda m, g: m + (g - m) * share.astype(g.dtype), state.mean, grads)
        zeros = jax.tree.map(jnp.zeros_like, grads)

        def make() -> tuple[Any, AccumulationState]:
            updates, inner_state = inner.update(mean, state.inner, params, **extra)
            return updates, AccumulationState(jnp.zeros_like(state.taken), jnp.zeros_like(weight), zeros, inner_state)

        def wait() -> tuple[Any, AccumulationState]:
            return zeros, AccumulationState(state.taken + 1, weight, mean, state.inner)

        return lax.cond(state.taken + 1 == steps, make, wait)

    return optax.GradientTransformationExtraArgs(init, update)
