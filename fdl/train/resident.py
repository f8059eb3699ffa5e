"""Training rows that lie on the device, and many steps in one call: nothing but the rows' numbers travels.

A step of a small net takes less time than its dispatch, and a batch's way to an accelerator longer than its step. Here
both are paid once: the rows are copied to the device when training begins, and one call makes all the steps up to the next
thing the host has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.data.pipeline import Stream
from fdl.types import Array

LONGEST = 1000
"""Steps of one call at most."""
MOST_BYTES = 1 << 30
"""Of rows that lie on the device unasked."""
MOST_FLOPS = 5e8
"""Of a step that a CPU makes many of in one call unasked. A dense 784-128-10 net trains 1.8 times as fast so in batches of 32,
1.4 times in batches of 128, a tabular 256-256-128 net (1.7e8 FLOPs) 1.13 times; from 2e9 FLOPs on there is little to gain,
and a run that is told to stop answers when the call has ended (2 cores of an AMD EPYC 9005, jax 0.10.2, 2 rounds)."""

Step = Callable[[Any, Any, Any], tuple[Any, dict[str, Array]]]
"""(state, batch, key) -> (state, metrics)."""


def looped(step: Step) -> Step:
    """(state, {"rows": int32 [B, LONGEST]}, (key, arrays, count)) -> (state, metrics [LONGEST]): the first `count` steps.

    The number of steps is data, not part of the program: how a run is cut into calls changes no bit of it.
    """

    def many(state: Any, batch: Any, fixed: Any) -> tuple[Any, dict[str, Array]]:
        key, arrays, count = fixed

        def one(state: Any, number: Any) -> Any:
            rows = lax.dynamic_index_in_dim(batch["rows"], number, 1, keepdims=False)
            return step(state, jax.tree.map(lambda leaf: leaf[rows], arrays), key)

        def body(number: Any, carry: Any) -> Any:
            state, seen = carry
            state, metrics = one(state, number)
            return state, jax.tree.map(lambda all, value: all.at[number].set(value), seen, metrics)

        shapes = jax.eval_shape(one, state, 0)[1]
        seen = jax.tree.map(lambda leaf: jnp.zeros((LONGEST, *leaf.shape), leaf.dtype), shapes)
        return lax.fori_loop(0, count, body, (state, seen))

    return many


def rows(stream: Stream, first: int, count: int) -> np.ndarray:
    """The rows of steps first ... first + count - 1, int32 [B, LONGEST]; zeros behind them."""
    order = np.zeros((stream.batch_size // stream.num_shards, LONGEST), np.int32)
    order[:, :count] = stream.rows_of_steps(first, count).T
    return order


def until_due(at: int, total: int, periods: Sequence[float], others: Sequence[int] = ()) -> int:
    """Steps from `at` to the next multiple of a period (0: none), to before the next of `others`, or to `total`; at least 1."""
    ends = [total, at + LONGEST, *(step - 1 for step in others if step > at + 1)]
    for period in periods:
        if period > 0:
            number = int(at / period) + 1
            ends += [end for end in (round(number * period), round((number + 1) * period)) if end > at][:1]
    return max(1, min(ends) - at)


def plain(arrays: Any) -> bool:
    """Whether every leaf is an array in memory."""
    return all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(arrays))


def small(arrays: Any) -> bool:
    """Whether they may lie on the device unasked."""
    return plain(arrays) and sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) <= MOST_BYTES


def why_not_looped(lowered: Any, flops: float) -> str:
    """Say why a step had better not run in a loop on a CPU; "" where it may.

    Args:
        lowered: the step as it is handed to the compiler.
        flops: of one step, as `fdl.train.flops` counts.
    """
    text = lowered.as_text()
    if "stablehlo.convolution" in text:  # inside a loop 30 to 70 times slower (jax-ml/jax#12868)
        return "its step holds a convolution"
    if "callback" in text:
        return "its step calls back into Python"
    if flops > MOST_FLOPS:
        return "its step is long enough to be dispatched alone"
    return ""
