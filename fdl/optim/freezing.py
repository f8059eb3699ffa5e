"""Freezing inside a training step: no gradient is computed, and statistics are kept."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn
from jax import lax

_INFERENCE = {"train": False, "use_running_average": True}
"""The argument that makes a module use its running statistics unchanged."""


def stop_frozen(params: object, trained: object) -> Any:
    """Make the leaves of `params` constants to differentiation where `trained` (`Optimizer.trainable(params)`) is False.

    Call it inside the function that is differentiated: what leads only to frozen gradients is then not computed.
    """
    return jax.tree.map(lambda leaf, train: leaf if train else lax.stop_gradient(leaf), params, trained)


def hold_frozen_statistics(trained: Any, stats: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Make a frozen part's BatchNorm normalise by its running statistics and leave them as they are, in training too.

    For `model.apply(..., train=True)` inside the `with`. It switches each module that has variables in `stats`, is called
    with an argument `train` or `use_running_average`, and has no trained parameter in it (for a module without parameters:
    in the smallest part around it that has some). Dropout in a frozen part stays on.

    Args:
        trained: `Optimizer.trainable(params)`.
        stats: the model's collections except "params", such as {"batch_stats": ...}.
    """
    if all(jax.tree.leaves(trained)) or not jax.tree.leaves(stats):
        return contextlib.nullcontext()

    def call(next_fn: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        if context.method_name != "__call__" or not _owns_variables(stats, path) or _has_trained(trained, path):
            return next_fn(*args, **kwargs)
        bound = inspect.signature(context.orig_method).bind_partial(*args, **kwargs)
        for name in set(_INFERENCE) & set(inspect.signature(context.orig_method).parameters):
            bound.arguments[name] = _INFERENCE[name]
        return next_fn(*bound.args, **bound.kwargs)

    return nn.intercept_methods(call)


def _owns_variables(stats: Mapping[str, object], path: tuple[str, ...]) -> bool:
    for collection in stats.values():
        for name in path:
            collection = collection.get(name, {}) if isinstance(collection, Mapping) else {}
        if isinstance(collection, Mapping) and any(not isinstance(leaf, Mapping) for leaf in collection.values()):
            return True
    return False


def _has_trained(trained: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(trained, Mapping) or name not in trained:
            break
        trained = trained[name]
    return any(jax.tree.leaves(trained))
