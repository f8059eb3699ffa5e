"""From the pure step to a compiled program for the devices at hand: one function, pmap or jit around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fdl.types import DATA_AXIS, Array, Batch, UserError

Mode = Literal["pmap", "jit"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which devices take part and how the step is compiled for them.

    Attributes:
        mode: "jit": one program over arrays sharded along DATA_AXIS, collectives placed by the compiler; "pmap": one
            program a device, collectives written in the step.
        mesh: all devices along DATA_AXIS.
    """

    mode: Mode
    mesh: Mesh

    @property
    def num_devices(self) -> int:
        return self.mesh.size

    @property
    def axis_name(self) -> str | None:
        """The axis for the step's own collectives: only pmap has one."""
        return DATA_AXIS if self.mode == "pmap" else None

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def sharded(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))


def choose_layout(parallel: Literal["auto", "pmap", "jit"], devices: Iterable[jax.Device] | None = None) -> Layout:
    """`auto` is pmap where one process holds several devices and jit otherwise.

    On one device both compile to the same program; jit's dispatch is the lighter one.
    """
    chosen = np.array(list(devices or jax.devices()))
    mode: Mode = ("pmap" if chosen.size > 1 and jax.process_count() == 1 else "jit") if parallel == "auto" else parallel
    if mode == "pmap" and jax.process_count() > 1:
        raise UserError("--parallel=pmap needs all devices in one process; give --parallel=jit for several processes")
    return Layout(mode, Mesh(chosen, (DATA_AXIS,), axis_types=(AxisType.Auto,)))


def check_divides(layout: Layout, **sizes: int) -> None:
    """Every batch must split evenly over the devices."""
    for name, size in sizes.items():
        if size % layout.num_devices:
            near = max(size // layout.num_devices, 1) * layout.num_devices
            raise UserError(f"{name}={size} does not split over {layout.num_devices} devices; --set {name}={near} does")


def localise(model: nn.Module, layout: Layout) -> nn.Module:
    """The model told over which axis to average its batch statistics, where it has any and the step is mapped."""
    if layout.axis_name and any(f.name == "axis_name" for f in dataclasses.fields(model)):
        return model.clone(axis_name=layout.axis_name)
    return model


def shard(batch: Batch, layout: Layout) -> Batch:
    """Host rows onto the devices, each its own part."""
    if layout.num_devices == 1 and layout.mode == "jit":
        return jax.device_put(batch, layout.mesh.devices.flat[0])

    def put(rows: np.ndarray) -> Array:
        if layout.mode == "pmap":
            rows = rows.reshape(layout.num_devices, -1, *rows.shape[1:])
        return jax.device_put(rows, layout.sharded)

    return jax.tree.map(put, batch)


def spec(tree: Any, sharding: NamedSharding | None) -> Any:
    """Shapes and dtypes of a tree of arrays, placed as `sharding` says."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _batch_spec(batch: Batch, layout: Layout) -> Batch:
    if layout.mode == "jit":
        return spec(batch, layout.sharded)
    parts = layout.num_devices
    split = jax.tree.map(lambda x: jax.ShapeDtypeStruct((parts, x.shape[0] // parts, *x.shape[1:]), x.dtype), batch)
    return spec(split, layout.sharded)


def compile_init(init: Callable[..., Any], key: Array, layout: Layout) -> Any:
    """The initial state, made where it will live."""
    return jax.jit(init, out_shardings=layout.replicated)(key)


def compile_train(step: Callable[..., Any], state: Any, batch: Batch, key: Array, layout: Layout) -> Any:
    """`step(state, batch, key) -> (state, metrics)` compiled ahead of time; the state's buffers are donated.

    Args:
        state, key: real arrays or specs; batch: specs of the global batch's raw rows.
    """
    specs = spec(state, layout.replicated), _batch_spec(batch, layout), spec(key, layout.replicated)
    if layout.mode == "pmap":
        mapped = jax.pmap(
            step, axis_name=DATA_AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0,
            devices=list(layout.mesh.devices.flat),
        )  # fmt: skip
        return mapped.lower(*specs).compile()
    out = (layout.replicated, layout.replicated)
    return jax.jit(step, donate_argnums=0, out_shardings=out).lower(*specs).compile()


def compile_eval(step: Callable[..., Any], variables: Mapping[str, Any], batch: Batch, layout: Layout) -> Any:
    """`step(variables, batch) -> sums` compiled ahead of time."""
    specs = spec(variables, layout.replicated), _batch_spec(batch, layout)
    if layout.mode == "pmap":
        devices = list(layout.mesh.devices.flat)
        return jax.pmap(step, DATA_AXIS, in_axes=(None, 0), out_axes=None, devices=devices).lower(*specs).compile()
    return jax.jit(step, out_shardings=layout.replicated).lower(*specs).compile()
