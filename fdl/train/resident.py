"""Training rows kept on the device, and many steps in one call: only the rows' numbers are transferred.

A step of a small net takes less time than its dispatch, and copying a batch to an accelerator can take longer than its
step. Here the rows are copied to the device once, when training begins, and one call makes all the steps up to the next
thing the host has to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.data.pipeline import Stream
from fdl.train.schedule import MAX_STEPS_PER_CALL

MAX_BYTES = 1 << 30
"""Rows larger than this are put on the device only where the experiment asks for it."""
MAX_FLOPS = 5e8
"""A CPU loops only over steps with fewer FLOPs than this: longer ones gain little, and a run that is asked to stop
responds only when the call has ended (measured in docs/speed.md)."""

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(state, batch, key) -> (state, metrics)."""


def many_steps(step: Step) -> Step:
    """Loop a step: (state, {"rows": int32 [B, MAX_STEPS_PER_CALL]}, (key, arrays, count)) -> (state, metrics by step).

    The number of steps is data, not part of the program, so how a run is cut into calls changes no bit of it. Only the
    first `count` entries of the metrics belong to steps; those after them are zero.
    """

    def many(state: Any, batch: Any, fixed: Any) -> tuple[Any, Any]:
        key, arrays, count = fixed

        def one(state: Any, number: Any) -> Any:
            # Axis 1 counts steps, so that a layout cuts axis 0, the batch, as it cuts a batch that is fed.
            rows = lax.dynamic_index_in_dim(batch["rows"], number, 1, keepdims=False)
            return step(state, jax.tree.map(lambda leaf: leaf[rows], arrays), key)

        def body(number: Any, carry: Any) -> Any:
            state, seen = carry
            state, metrics = one(state, number)
            return state, jax.tree.map(lambda all, value: all.at[number].set(value), seen, metrics)

        # A loop carries arrays of fixed shape, so the metrics' room is for the longest call. Not lax.scan: its length is
        # part of the program, and each length of call would be compiled anew.
        shapes = jax.eval_shape(one, state, 0)[1]
        seen = jax.tree.map(lambda leaf: jnp.zeros((MAX_STEPS_PER_CALL, *leaf.shape), leaf.dtype), shapes)
        return lax.fori_loop(0, count, body, (state, seen))

    return many


def rows_of_call(stream: Stream, first: int, count: int) -> np.ndarray:
    """List the rows of steps first ... first + count - 1, int32 [B, MAX_STEPS_PER_CALL]; zeros after them."""
    order = np.zeros((stream.batch_size // stream.num_shards, MAX_STEPS_PER_CALL), np.int32)
    order[:, :count] = stream.rows_of_steps(first, count).T
    return order


def in_memory(arrays: object) -> bool:
    """Return whether every leaf is an array in memory."""
    return all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(arrays))


def is_small(arrays: object) -> bool:
    """Return whether the rows may be put on the device without being asked to."""
    return in_memory(arrays) and sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) <= MAX_BYTES


def why_not_looped(lowered: jax.stages.Lowered, flops: Callable[[], float]) -> str:
    """Say why a step should not run in a loop on a CPU; "" where it may.

    Args:
        lowered: the step as the compiler receives it.
        flops: counts the FLOPs of one step, as `fdl.flops` does; called last, because it traces the step.
    """
    text = lowered.as_text()
    if "stablehlo.convolution" in text:  # inside a loop 30 to 70 times slower (jax-ml/jax#12868)
        return "its step holds a convolution"
    if "callback" in text:
        return "its step calls back into Python"
    if flops() > MAX_FLOPS:
        return "its step is long enough to be dispatched alone"
    return ""
