"""A model's layers: shapes, parameters and FLOPs, found without running it."""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import jax
from flax import linen as nn

from fdl.flops import flops_by_scope
from fdl.train.program import Program
from fdl.train.tracing import forward_jaxpr

Path = tuple[str, ...]
"""The path of a module, from the model down: ("block1", "conv2"); () for the model itself."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One module that owns parameters.

    Attributes:
        name: its path in the model.
        kind: its class.
        shape: of its output for one example.
        params: its own parameters.
        flops: of one forward pass of one training example, as `fdl.flops` counts.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int


def layers(program: Program) -> list[Layer]:
    """List the layers in the order they are called; FLOPs that no layer owns are the model's own.

    Their sum, times the batch, is the cost of the model's call within `fdl.train.tracing.step_flops`.
    """
    calls: dict[Path, tuple[str, tuple[int, ...]]] = {}

    def note(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = next_call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(out, "shape"):
            calls.setdefault(context.module.path, (type(context.module).__name__, tuple(out.shape[1:])))
        return out

    with nn.intercept_methods(note):
        jaxpr = forward_jaxpr(program)
    owned: collections.Counter[Path] = collections.Counter()
    by_hand: collections.Counter[Path] = collections.Counter()
    for path, leaf in jax.tree_util.tree_flatten_with_path(program.state_spec.params)[0]:
        module = tuple(key.key for key in path[:-1])
        owned[module] += math.prod(leaf.shape)
        if len(leaf.shape) > 1:  # a kernel, which is multiplied at every position of the output
            by_hand[module] += 2 * math.prod(leaf.shape) * math.prod(calls.get(module, ("", ()))[1][:-1])
    flops: collections.Counter[Path] = collections.Counter()
    for scope, count in flops_by_scope(jaxpr).items():
        flops[_owner(scope, set(owned))] += count // program.experiment.batch_size
    if "callback" in str(jaxpr):
        flops += by_hand  # computed by NumPy, which the jaxpr does not show
    order = [path for path in calls if path in owned] + [path for path in owned if path not in calls]
    if flops[()] and () not in owned:
        order.insert(0, ())
    model = type(program.experiment.model).__name__
    return [Layer("/".join(path) or model, *calls.get(path, ("", ())), owned[path], flops[path]) for path in order]


def _owner(scope: tuple[str, ...], known: set[Path]) -> Path:
    """Find the innermost module with parameters that a named scope is in: Flax names one "module" or "module.method"."""
    prefixes = {path[:i] for path in known for i in range(len(path) + 1)}
    path: Path = ()
    for piece in scope:
        longer = (*path, piece.partition(".")[0])
        path = longer if longer in prefixes else path
    while path not in known and path:
        path = path[:-1]
    return path


def totals(program: Program) -> dict[str, int]:
    """Count parameters (trainable, frozen), statistics, and the bytes of the whole state."""
    like = program.state_spec
    count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))  # noqa: E731
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    trained = program.experiment.optimizer.trainable(like.params)
    sizes = jax.tree.map(lambda leaf, on: math.prod(leaf.shape) * on, like.params, trained)
    trainable = sum(jax.tree.leaves(sizes))
    return {
        "parameters": count(like.params),
        "trainable": trainable,
        "frozen": count(like.params) - trainable,
        "statistics": count(like.stats),
        "state_bytes": size,
    }
