"""Which devices a run uses, what each of them holds, and how arrays are placed on them."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Iterable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fdl.types import DATA_AXIS, Array, Batch, UserError, one_line

Mode = Literal["pmap", "jit"]

FSDP_AXIS, MODEL_AXIS = "fsdp", "model"
AXES = (DATA_AXIS, FSDP_AXIS, MODEL_AXIS)
WHOLE_BELOW = 1024
"""Arrays of fewer numbers than this are not worth splitting: every device keeps them whole."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which devices take part, what each of them holds, and how the step is compiled for them.

    Attributes:
        mode: "jit": one program over sharded arrays, collectives placed by the compiler; "pmap": one program per
            device, collectives written in the step.
        mesh: the devices by the axes of AXES. The batch is split along "data" and "fsdp", parameters and optimizer
            state along "fsdp" (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, stage 3), and the outputs of
            every kernel along "model" (tensor parallelism).
    """

    mode: Mode
    mesh: Mesh

    @property
    def num_devices(self) -> int:
        return self.mesh.size

    @property
    def parts(self) -> int:
        """The number of parts a batch is split into."""
        return self.mesh.shape[DATA_AXIS] * self.mesh.shape[FSDP_AXIS]

    @property
    def axis_name(self) -> str | None:
        """The axis for the step's own collectives: only pmap has one."""
        return DATA_AXIS if self.mode == "pmap" else None

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @functools.cached_property
    def sharded(self) -> NamedSharding:
        """The sharding of a batch, along its first dimension."""
        return NamedSharding(self.mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))

    def placed(self, state: object) -> Any:
        """Choose the sharding of every leaf of a state by its shape alone: optimizer moments are placed like their parameters."""
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self.cut(leaf.shape)), state)

    def cut(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Choose the axes of the mesh along which an array of the state is split."""
        axes: list[str | None] = [None] * len(shape)
        fsdp, model = self.mesh.shape[FSDP_AXIS], self.mesh.shape[MODEL_AXIS]
        if math.prod(shape) < WHOLE_BELOW:
            return PartitionSpec()
        if model > 1 and len(shape) > 1 and shape[-1] % model == 0:
            axes[-1] = MODEL_AXIS
        # The longest dimension that divides evenly: XLA would pad an uneven one on some devices.
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % fsdp == 0]
        if fsdp > 1 and free:
            axes[max(free, key=lambda i: shape[i])] = FSDP_AXIS
        return PartitionSpec(*axes) if any(axes) else PartitionSpec()

    @functools.cached_property
    def feed(self) -> tuple[int, int]:
        """(shard, num_shards): the part of every global batch that this process feeds."""
        grid = self.mesh.devices.reshape(self.parts, -1)
        # Devices along "model" share a part of the batch, so a part counts as soon as one of its devices is ours; two
        # processes that share one feed the same rows. Own parts are adjacent: see the order of devices in `choose_layout`.
        own = [i for i in range(self.parts) if any(d.process_index == jax.process_index() for d in grid[i])]
        return own[0] // len(own), self.parts // len(own)


def parse_mesh(text: str, num_devices: int) -> dict[str, int]:
    """Parse the sizes of "data:4,model:2"; an axis left out is 1, except "data", which takes the remaining devices.

    Raises:
        UserError: an axis is unknown, given twice or not a number, or the product is not the number of devices.
    """
    sizes: dict[str, int] = {}
    for part in text.split(",") if text else []:
        axis, _, size = part.strip().partition(":")
        if axis not in AXES or axis in sizes or not size.isdecimal() or int(size) < 1:
            raise UserError(f"--mesh={text}: {part!r} is none of data:N, fsdp:N, model:N (each once, N at least 1)")
        sizes[axis] = int(size)
    others = math.prod(size for axis, size in sizes.items() if axis != DATA_AXIS)
    sizes.setdefault(DATA_AXIS, max(1, num_devices // others))
    if sizes[DATA_AXIS] * others != num_devices:
        raise UserError(f"--mesh={text} is for {sizes[DATA_AXIS] * others} devices, and there are {num_devices}")
    return {axis: sizes.get(axis, 1) for axis in AXES}


def find_devices() -> list[jax.Device]:
    """Return the devices that JAX computes on.

    Raises:
        UserError: there are none.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that a device exists
        asked = os.environ.get("JAX_PLATFORMS")
        where = f"for JAX_PLATFORMS={asked} " if asked else ""
        raise UserError(
            f"JAX finds no device {where}here ({one_line(error)}); install the build of jax for it, or set JAX_PLATFORMS=cpu"
        ) from error


def require_platform(wanted: str) -> None:
    """Refuse, before anything is compiled, to run where JAX silently fell back to another kind of device.

    Raises:
        UserError: JAX runs on something other than `wanted` ("cpu", "gpu" or "tpu").
    """
    try:
        have = find_devices()[0].platform
    except UserError as error:
        raise UserError(f"--require={wanted}: {error}") from error
    if {"cuda": "gpu", "rocm": "gpu"}.get(have, have) != wanted:
        raise UserError(
            f"--require={wanted}: JAX runs on {have} here; install the {wanted} build of jax or drop --require"
        )


def choose_layout(
    parallel: Literal["auto", "pmap", "jit"], devices: Iterable[jax.Device] | None = None, mesh: str = ""
) -> Layout:
    """Choose the layout: `auto` is pmap where one process holds several devices and only the batch is split, else jit.

    On one device both compile to the same program; jit's dispatch is lighter. Devices are ordered by their processes, so
    that each process feeds one contiguous block of rows.

    Raises:
        UserError: pmap was asked for with several processes or with a mesh of more than the data axis; see `parse_mesh`.
    """
    chosen = sorted(devices or find_devices(), key=lambda device: (device.process_index, device.id))
    sizes = parse_mesh(mesh, len(chosen))
    plain = sizes[DATA_AXIS] == len(chosen)
    together = len({device.process_index for device in chosen}) == 1
    mode: Mode = ("pmap" if len(chosen) > 1 and together and plain else "jit") if parallel == "auto" else parallel
    if mode == "pmap" and not together:
        raise UserError("--parallel=pmap needs all devices in one process; give --parallel=jit for several processes")
    if mode == "pmap" and not plain:
        raise UserError(f"--parallel=pmap cuts the batch alone; give --parallel=jit for --mesh={mesh}")
    grid = np.array(chosen).reshape([sizes[axis] for axis in AXES])
    return Layout(mode, Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES)))


def check_divides(layout: Layout, **sizes: int) -> None:
    """Refuse batch sizes that do not split evenly over the devices."""
    for name, size in sizes.items():
        if size % layout.parts:
            near = max(size // layout.parts, 1) * layout.parts
            raise UserError(f"{name}={size} does not split over {layout.parts} devices; --set {name}={near} does")


def shard(batch: Batch, layout: Layout) -> Batch:
    """Put this process's rows on its devices, on each its own part of the global batch."""
    if layout.num_devices == 1 and layout.mode == "jit":
        return jax.device_put(batch, layout.mesh.devices.flat[0])
    _, num_shards = layout.feed

    def put(rows: np.ndarray) -> Array:
        if layout.mode == "pmap":
            return jax.device_put(rows.reshape(layout.num_devices, -1, *rows.shape[1:]), layout.sharded)
        whole = (rows.shape[0] * num_shards, *rows.shape[1:])
        return jax.make_array_from_process_local_data(layout.sharded, rows, whole)

    return jax.tree.map(put, batch)


def place(array: np.ndarray, like: Any) -> Array:
    """Put a host array, whole in every process, on the devices as `like` is placed."""
    # Each process supplies the shards of its own devices only.
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])


def spec(tree: Any, sharding: Any) -> Any:
    """Make the specs of a tree of arrays, placed by `sharding` (one for all, or a tree of them)."""
    each = jax.tree.map(lambda _: sharding, tree) if isinstance(sharding, NamedSharding) else sharding
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, each)
