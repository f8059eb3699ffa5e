"""What a model is made of, layer by layer: shapes, parameters and FLOPs, found without running it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from fdl.train.program import Program
from fdl.types import Batch, take


@dataclasses.dataclass(frozen=True)
class Layer:
    """One module that owns parameters.

    Attributes:
        name: its path in the model.
        kind: its class.
        shape: of its output for one example.
        params: its own parameters.
        flops: of one forward pass of one example: 2 a multiply-add of every kernel.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int


def layers(program: Program) -> list[Layer]:
    """The layers in the order they are called."""
    model, prepare = program.experiment.model, program.data.prepare
    calls: dict[tuple[str, ...], tuple[str, tuple[int, ...]]] = {}

    def note(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = next_call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(out, "shape"):
            calls.setdefault(context.module.path, (type(context.module).__name__, tuple(out.shape[1:])))
        return out

    def forward(key: jax.Array, batch: Batch) -> Any:
        with nn.intercept_methods(note):
            return model.init(key, prepare(batch, None)["inputs"], train=False)

    variables = jax.eval_shape(forward, program.key_spec, take(program.data.splits.evaluated, slice(0, 1)))
    owned: dict[tuple[str, ...], list[tuple[str, Sequence[int]]]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]:
        keys = tuple(key.key for key in path)
        owned.setdefault(keys[:-1], []).append((keys[-1], leaf.shape))
    order = [path for path in calls if path in owned] + [path for path in owned if path not in calls]
    table = []
    for path in order:
        kind, shape = calls.get(path, ("", ()))
        parent = calls.get(path[:-1], ("", ()))
        places = math.prod((shape or parent[1])[:-1]) if kind != "Embed" else 0
        kernels = sum(math.prod(dims) for name, dims in owned[path] if len(dims) >= 2)
        params = sum(math.prod(dims) for _, dims in owned[path])
        table.append(Layer("/".join(path) or type(model).__name__, kind, shape, params, 2 * kernels * places))
    return table


def totals(program: Program) -> dict[str, int]:
    """Parameters (trainable, frozen), statistics, and the bytes of the whole state."""
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
