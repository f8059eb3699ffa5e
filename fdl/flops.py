"""FLOPs counted on the jaxpr, the same way everywhere in fdl: in a plan, a dry run, a table of layers.

2 FLOPs a multiply-add of every matrix product and convolution; nothing else. XLA's own analysis counts the body of a loop
once, however often it runs, and a table look-up as the product that it may be compiled to.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from typing import Any

from jax.interpreters import partial_eval


def drop_dead_code(closed: Any) -> Any:
    """Drop what no result needs, as the compiler does: a hand-written backward pass also computes the inputs' gradient."""
    return partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def count_flops(jaxpr: Any) -> int:
    """Count the FLOPs of a (closed) jaxpr.

    >>> import jax, jax.numpy as jnp
    >>> count_flops(jax.make_jaxpr(jnp.dot)(jnp.ones((3, 4)), jnp.ones((4, 5))))
    120
    """
    return sum(flops_by_scope(jaxpr).values())


def flops_by_scope(jaxpr: Any, scope: tuple[str, ...] = ()) -> collections.Counter[tuple[str, ...]]:
    """Count the FLOPs of a (closed) jaxpr by the named scopes (those of Flax modules among them) they are computed in.

    A scan's body counts as often as it runs, a condition's most expensive branch once, a while loop's body once: how often
    that runs is not known.
    """
    total: collections.Counter[tuple[str, ...]] = collections.Counter()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = eqn.primitive.name, eqn.params
        own = (*scope, *(piece for piece in str(eqn.source_info.name_stack).split("/") if piece))
        if name == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            total[own] += 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            total[own] += _conv_flops(eqn)
        else:
            inner = [flops_by_scope(part, own) for value in params.values() for part in inner_jaxprs(value)]
            if params.get("branches_platforms"):
                inner = inner[-1:]  # the plain form, whatever a platform compiles instead
            elif name == "cond" and inner:
                inner = [max(inner, key=lambda part: sum(part.values()))]
            for part in inner:
                for key, flops in part.items():
                    total[key] += params.get("length", 1) * flops if name == "scan" else flops
    return total


def _conv_flops(eqn: Any) -> int:
    """Count the products of the definition; products with the zeros of padding and dilation are left out, as XLA does."""
    x, kernel, out = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    places = 1
    for i, (low, _) in enumerate(params["padding"]):
        size, window = x.shape[numbers.lhs_spec[2 + i]], kernel.shape[numbers.rhs_spec[2 + i]]
        steps = out.shape[numbers.out_spec[2 + i]]
        stride, spread, dilation = params["window_strides"][i], params["lhs_dilation"][i], params["rhs_dilation"][i]
        where = (o * stride + k * dilation - low for o in range(steps) for k in range(window))
        places *= sum(at % spread == 0 and 0 <= at // spread < size for at in where)
    batch, features = out.shape[numbers.out_spec[0]], out.shape[numbers.out_spec[1]]
    return 2 * batch * features * kernel.shape[numbers.rhs_spec[1]] * places


def inner_jaxprs(value: object) -> Iterator[Any]:
    """Yield the jaxprs in a parameter of an equation."""
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if hasattr(part, "eqns") or hasattr(part, "jaxpr"):
            yield part
