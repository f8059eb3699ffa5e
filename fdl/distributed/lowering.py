"""From the pure step to a compiled program for the devices of a layout: one function inside pmap or jit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from fdl.distributed.layouts import FSDP_AXIS, MODEL_AXIS, Layout, spec
from fdl.types import DATA_AXIS, Array, Batch


def _batch_spec(batch: Batch, layout: Layout) -> Batch:
    if layout.mode == "jit":
        return spec(batch, layout.sharded)
    parts = layout.num_devices
    split = jax.tree.map(lambda x: jax.ShapeDtypeStruct((parts, x.shape[0] // parts, *x.shape[1:]), x.dtype), batch)
    return spec(split, layout.sharded)


def compile_init(init: Callable[..., object], key: Array, like: object) -> Any:
    """Compute the initial state in its place: each device computes its own part."""
    return jax.jit(init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like))(key)


def lower_train(
    step: Callable[..., object], state: object, batch: Batch, fixed: object, layout: Layout
) -> jax.stages.Lowered:
    """Lower `step(state, batch, fixed) -> (state, metrics)`, to be compiled ahead of time; the state's buffers are donated.

    Args:
        state: specs, placed.
        batch: specs of a global batch.
        fixed: specs, placed, of what is the same on every device: the run's key, ...
    """
    specs = state, _batch_spec(batch, layout), fixed
    if layout.mode == "pmap":
        # out_axes=None: the step's own collectives make state and metrics equal on all devices, so one copy is returned.
        mapped = jax.pmap(
            step, axis_name=DATA_AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0,
            devices=list(layout.mesh.devices.flat),
        )  # fmt: skip
        return mapped.lower(*specs)
    out = (jax.tree.map(lambda leaf: leaf.sharding, state), layout.replicated)
    if layout.mesh.shape[FSDP_AXIS] > 1 and layout.mesh.shape[MODEL_AXIS] > 1:
        step = _gathering(step, layout)
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(*specs)


def _gathering(step: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """Constrain the step to gather its parameters along "fsdp" first, as fully sharded training does.

    Without it, XLA's partitioner (Shardy, jaxlib 0.10.2; not GSPMD) computes a wrong gradient of an LSTM's scan where a
    kernel is split along both axes on data:2,fsdp:2,model:2 (3e-3 off after one step; tests/distributed/test_layouts.py
    holds the case).
    """

    def together(leaf: Any) -> Any:
        axes = [axis if axis == MODEL_AXIS else None for axis in layout.cut(leaf.shape)]
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(layout.mesh, PartitionSpec(*axes)))

    def gathered(state: Any, batch: Batch, fixed: Any) -> Any:
        return step(dataclasses.replace(state, params=jax.tree.map(together, state.params)), batch, fixed)

    return gathered


def compile_eval(
    step: Callable[..., object], variables: Mapping[str, object], batch: Batch, layout: Layout
) -> jax.stages.Compiled:
    """Compile `step(variables, batch) -> sums` ahead of time; `variables` and `batch` are specs."""
    specs = variables, _batch_spec(batch, layout)
    if layout.mode == "pmap":
        devices = list(layout.mesh.devices.flat)
        return jax.pmap(step, DATA_AXIS, in_axes=(None, 0), out_axes=None, devices=devices).lower(*specs).compile()
    return jax.jit(step, out_shardings=layout.replicated).lower(*specs).compile()
