"""The optimizers written by hand in `fdl.scratch`, in NumPy, as an Optax transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fdl.numpy_call import numpy_call
from fdl.optim.rules import Coefficients, Rule
from fdl.optim.schedules import LearningRate
from fdl.scratch import optimizers
from fdl.types import leaf_name, named_leaves

RULES = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw")


def make_update(rule: Rule, c: Coefficients, rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Make the same transform as `fdl.optim.rules.make_update`, for `RULES`, by one NumPy call."""
    scratch = _scratch_rule(rule, c)

    def init(params: object) -> Any:
        names = scratch(0.0, False).init({})  # "step" and the averages that the rule keeps, all zero
        return {
            group: {name: jax.tree.map(jnp.zeros_like, part) for name in names} | {"step": jnp.zeros((), jnp.int32)}
            for group, part in _by_decay(params).items()
        }

    def step_in_numpy(params: Any, grads: Any, states: Any, rate: np.ndarray) -> tuple[Any, Any]:
        new, after = {}, {}
        for group, state in states.items():
            at = state | {"step": int(state["step"])}  # Python's numbers keep float32
            new[group], at = scratch(float(rate), group == "decayed").update(params[group], grads[group], at)
            after[group] = at | {"step": np.int32(at["step"])}
        return new, after

    def update(grads: object, states: object, params: object = None, *, step: object, **_: object) -> tuple[Any, Any]:
        parts = _by_decay(params)
        like = jax.tree.map(jax.ShapeDtypeStruct.like, (parts, states))
        new, states = numpy_call(step_in_numpy, like, parts, _by_decay(grads), states, rate(step))
        new = new["decayed"] | new["other"]  # adding this gives the new value again, except for rounding near zero
        name = leaf_name
        return jax.tree_util.tree_map_with_path(lambda path, w: new[name(path)] - w, params), states

    return optax.GradientTransformationExtraArgs(init, update)


def _scratch_rule(rule: Rule, c: Coefficients) -> Callable[[float, bool], optimizers.Optimizer]:
    def make(rate: float, decayed: bool) -> optimizers.Optimizer:
        if rule == "sgd":
            return optimizers.gradient_descent(rate)
        if rule in ("momentum", "nesterov"):
            scale = 1.0 if c.dampened else 1 / (1 - c.momentum)  # the hand-written one is dampened
            return optimizers.momentum(rate * scale, c.momentum, rule == "nesterov")
        if rule == "rmsprop":
            return optimizers.rmsprop(rate, c.rms_decay, c.eps)
        return optimizers.adamw(rate, c.b1, c.b2, c.eps, c.weight_decay if decayed else 0.0)

    return make


def _by_decay(params: object) -> dict[str, dict[str, Any]]:
    """Split the leaves by name into those that weight decay applies to, and the others."""
    groups: dict[str, dict[str, Any]] = {"decayed": {}, "other": {}}
    for name, leaf in named_leaves(params).items():
        groups["decayed" if jnp.ndim(leaf) >= 2 else "other"][name] = leaf
    return groups
