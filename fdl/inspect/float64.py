"""A computation, unchanged, in float64: its jaxpr evaluated with every narrower float widened.

A model may turn its outputs into float32, a loss its terms; JAX's own 64-bit mode leaves such conversions as they are and
changes what random numbers are drawn. Here the trace is the one that the training step has, so dropout and augmentation
stay the same, and nothing in it is rounded to 24 bits again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

Tree = Any
"""A tree of arrays."""
_CALLS = ("jaxpr", "call_jaxpr")


@contextlib.contextmanager
def enabled() -> Iterator[None]:
    """Switch JAX's 64-bit mode on, in all threads.

    `jax.enable_x64` would leave out those in which callbacks into Python run.
    """
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def widened(function: Callable[..., Tree], *example: Tree) -> Callable[..., Tree]:
    """Return `function` in float64: arguments, constants, intermediate values, results. Call it under `enabled`.

    Numbers that are made from bits (random ones) are made as before and then widened. A callback into Python is given
    float64 and must return it.

    Args:
        function: traced now, in the mode that is on now.
        example: its arguments, or their shapes and dtypes.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    tree = jax.tree.structure(shape)

    def wide(*arguments: Tree) -> Tree:
        leaves = [_up(jnp.asarray(leaf)) for leaf in jax.tree.leaves(arguments)]
        return jax.tree.unflatten(tree, _evaluate(closed.jaxpr, closed.consts, *leaves))

    return wide


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[jax.Array], *arguments: jax.Array) -> list[jax.Array]:
    known: dict[object, jax.Array] = dict(zip(jaxpr.constvars, map(_up, consts), strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> jax.Array:
        literal = isinstance(atom, core.Literal)
        return jnp.asarray(atom.val, _wide(atom.aval.dtype)) if literal else known[atom]

    for eqn in jaxpr.eqns:
        results = _apply(eqn, [value(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, map(_up, results), strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _apply(eqn: Any, values: list[jax.Array]) -> list[jax.Array]:
    """Evaluate one equation on wide values."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("jit", "pjit", "closed_call", "checkpoint", "remat2") or name.startswith("custom_"):
        inner = next(params[key] for key in _CALLS if key in params)
        return _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), *values)
    if name == "bitcast_convert_type":  # reads the bits of a number, which must have as many as before
        values = [v.astype(atom.aval.dtype) for v, atom in zip(values, eqn.invars, strict=True)]
    else:
        params = {key: _wide_param(param) for key, param in params.items()}
    results = eqn.primitive.bind(*values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _wide_param(param: Any) -> object:
    """Widen the dtypes in an equation's parameter, and the jaxprs in it (the body of a loop)."""
    if isinstance(param, core.ClosedJaxpr | core.Jaxpr):
        inner: Any = getattr(param, "jaxpr", param)
        consts = getattr(param, "consts", ())
        like = [jax.ShapeDtypeStruct(var.aval.shape, _wide(var.aval.dtype)) for var in inner.invars]
        made = jax.make_jaxpr(functools.partial(_evaluate, inner, consts))(*like)
        return made if isinstance(param, core.ClosedJaxpr) else made.jaxpr
    if isinstance(param, jax.core.ShapedArray):  # what a callback returns
        return param.update(dtype=_wide(param.dtype))
    if type(param) is tuple:
        return tuple(map(_wide_param, param))
    return _wide(param) if isinstance(param, np.dtype) else param


def _wide(dtype: np.dtype) -> np.dtype:
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64)
    return np.dtype(np.complex128) if jnp.issubdtype(dtype, jnp.complexfloating) else dtype


def _up(value: jax.Array) -> jax.Array:
    wide = _wide(value.dtype)
    return value if wide == value.dtype else value.astype(wide)
