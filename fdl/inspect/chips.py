"""TPU chips: their published performance, and slices of them as devices to compile for.

Sources: the "Key specifications" of Google's pages https://docs.cloud.google.com/tpu/docs/v3, v4, v5e, v5p-training, v6e
(bf16 FLOP/s, HBM bandwidth; interconnect of v5e, v5p and v6e); v2, and the links of v2 and v3 (496 and 656 Gbit/s), from
Jouppi et al. 2020, "A Domain-Specific Supercomputer for Training Deep Neural Networks", CACM 63(7), table 3; the links of
v4 (50 GB/s) from Jouppi et al. 2023, https://arxiv.org/abs/2304.01433, table 4. `hbm` is what the TPU compiler of libtpu
0.0.42 grants a program; it is a little less than the chip has.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
import jax.extend.backend

from fdl.types import UserError, one_line

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """The performance of one device: a whole chip, except for v2 and v3, where each of a chip's two cores is a device.

    Attributes:
        hbm: bytes of memory that a program may use.
        flops: peak FLOP/s of bf16 products; float32 products run as bf16 ones at JAX's default precision.
        bandwidth: bytes/s to and from HBM.
        ici: bytes/s that the device can send around one ring of the torus: two links, one each way.
        rank: dimensions of the torus.
        cores: the cores of one chip, which the usual names count (v2-8 and v5p-8 are 4 chips, v5e-8 is 8).
    """

    name: str
    hbm: float
    flops: float
    bandwidth: float
    ici: float
    rank: int
    cores: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v2", 7.48 * GIB, 46e12 / 2, 700e9 / 2, 2 * 62e9 / 2, 2, 2),
        Chip("v3", 15.48 * GIB, 123e12 / 2, 900e9 / 2, 2 * 82e9 / 2, 2, 2),
        Chip("v4", 30.75 * GIB, 275e12, 1200e9, 2 * 50e9, 3, 2),
        Chip("v5e", 15.75 * GIB, 197e12, 819e9, 400e9 / 4, 2, 1),
        Chip("v5p", 95.74 * GIB, 459e12, 2765e9, 1200e9 / 6, 3, 2),
        Chip("v6e", 31.25 * GIB, 918e12, 1638e9, 800e9 / 4, 2, 1),
    )
}
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}


def parse(topology: str) -> tuple[str, tuple[int, ...]]:
    """Parse "v5e:2x4" or "v5e-8" to ("v5e", (2, 4)), "cpu:8" to ("cpu", (8,)).

    Raises:
        UserError: it is none of these.
    """
    kind, _, rest = topology.replace("v5litepod", "v5e").replace("-", ":").partition(":")
    if kind == "cpu" and rest.isdecimal() and int(rest) > 0:
        return kind, (int(rest),)
    if kind in CHIPS:
        chip = CHIPS[kind]
        if rest.isdecimal() and int(rest) % chip.cores == 0:
            rest = (_FLAT if chip.rank == 2 else _DEEP).get(int(rest) // chip.cores, rest)
        if re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", rest):
            return kind, tuple(int(size) for size in rest.split("x"))
    known = [f"{chip.name}-{n * chip.cores}" for chip in CHIPS.values() for n in (_FLAT if chip.rank == 2 else _DEEP)]
    raise UserError(f"--topology={topology} is unknown; there are cpu:N, shapes such as v5e:2x4, and {' '.join(known)}")


def devices(topology: str) -> Sequence[jax.Device]:
    """List the devices of a slice, to compile for; a TPU's cannot run anything. Call it before there are arrays.

    Raises:
        UserError: the name is unknown (the known ones are listed), libtpu is missing, or the environment gives fewer CPUs.
    """
    kind, shape = parse(topology)
    if kind == "cpu":
        return _virtual_cpus(shape[0])
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology} needs the TPU compiler, which runs on any Linux PC: pip install -e '.[tpu]'"
        )
    from jax.experimental import topologies

    options: dict[str, object] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    bounds = (*shape, 1, 1)[:3]
    if math.prod(shape) <= 4 or (kind in ("v5e", "v6e") and shape == (2, 4)):
        options["chips_per_host_bounds"] = bounds  # as one host
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{'x'.join(map(str, shape))}", **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology={topology}: {one_line(error)}; take a shape such as v5e:2x4 or a name as v5e-8"
        ) from error


def _virtual_cpus(number: int) -> Sequence[jax.Device]:
    chosen = (
        "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ
    )
    have = jax.devices("cpu") if chosen else []
    if not chosen:
        jax.extend.backend.clear_backends()  # the number of CPU devices is fixed once JAX has started
        jax.config.update("jax_num_cpu_devices", number)
        have = jax.devices("cpu")
    if len(have) < number:
        raise UserError(
            f"--topology=cpu:{number}: the environment (XLA_FLAGS or JAX_NUM_CPU_DEVICES) gives {len(have)}; unset it"
        )
    return have[:number]
