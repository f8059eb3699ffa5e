"""Gradient accumulation: one update for several steps, by the mean of their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fdl.types import Array


class AccumulationState(NamedTuple):
    """The number of gradients `taken` (int32) since the last update, and their `mean`."""

    taken: Array
    mean: Any
    inner: Any


def accumulate_gradients(transform: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """Make one update in `steps` calls of `update`, by the mean of their gradients; the other calls return 0.

    Unlike `optax.MultiSteps` it computes the update only when it is due, and counts only steps whose state is kept: a
    skipped step is replaced by the next one.
    """
    inner = optax.with_extra_args_support(transform)

    def init(params: Any) -> AccumulationState:
        return AccumulationState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update(grads: Any, state: AccumulationState, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        mean = jax.tree.map(lambda m, g: m + (g - m) / (state.taken + 1).astype(g.dtype), state.mean, grads)
        zeros = jax.tree.map(jnp.zeros_like, grads)

        def make() -> tuple[Any, AccumulationState]:
            updates, inner_state = inner.update(mean, state.inner, params, **extra)
            return updates, AccumulationState(jnp.zeros_like(state.taken), zeros, inner_state)

        def wait() -> tuple[Any, AccumulationState]:
            return zeros, AccumulationState(state.taken + 1, mean, state.inner)

        return lax.cond(state.taken + 1 == steps, make, wait)

    return optax.GradientTransformationExtraArgs(init, update)
