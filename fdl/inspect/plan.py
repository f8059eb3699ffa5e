"""A training step compiled for devices that are not here: whether it fits, what it costs, and what would bound it.

Everything is computed, nothing is run. The step time is a roofline (Williams et al. 2009): the longest of products at the
chip's peak, HBM traffic at its bandwidth, and collectives around one ring of the torus, each perfectly overlapped with the
others; the input pipeline, latencies (a recurrent net's many small steps) and launch costs come on top.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

import jax

from fdl.inspect import chips, costs
from fdl.train.program import Program
from fdl.train.tracing import step_flops, step_jaxpr
from fdl.types import count_examples, one_line


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        parts: by what they hold, in the order shown; where the compiler failed, only the step's arguments.
        total: of the program; where the compiler failed, what it says it would have used (nan: it did not say).
        error: the compiler's message where it failed, else "".
    """

    parts: Mapping[str, int]
    total: float
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of one training step.

    Attributes:
        topology, mode, mesh: the devices, how the step is compiled for them, and their axes.
        chip: the performance of one device; None for CPUs.
        batch: examples of the global batch.
        memory: of one device.
        flops: of the products of the whole step, all devices together.
        traffic: bytes of HBM that one device reads and writes (0: not known).
        collectives: of the compiled step.
        seconds: the roofline's times: "compute", "memory", "network"; empty without a chip or a compiled step.
    """

    topology: str
    mode: str
    mesh: Mapping[str, int]
    chip: chips.Chip | None
    batch: int
    memory: Memory
    flops: float
    traffic: int
    collectives: tuple[costs.Collective, ...]
    seconds: Mapping[str, float]

    @property
    def num_devices(self) -> int:
        return math.prod(self.mesh.values())

    @property
    def fits(self) -> bool | None:
        """Whether the step fits into memory; None where nothing is known of the device."""
        if self.memory.error:
            return False
        return self.memory.total <= self.chip.hbm if self.chip else None


def plan(program: Program, topology: str) -> Plan:
    """Compile the program's training step and read off its costs.

    Args:
        program: built on a layout of `chips.devices(topology)`.
        topology: as the user gave it.
    """
    kind, _ = chips.parse(topology)
    chip, layout = chips.CHIPS.get(kind), program.layout
    memory, text, flops = measure(program)
    traffic = costs.hbm_traffic(text) if chip else 0
    found = costs.collectives(text, layout.num_devices)
    seconds = roofline(chip, flops / layout.num_devices, traffic, found) if chip and text else {}
    shape = dict(layout.mesh.shape)
    return Plan(
        topology, layout.mode, shape, chip, program.experiment.batch_size, memory, flops, traffic, found, seconds
    )


def largest_batch(program: Program, plan: Plan) -> tuple[int | None, dict[int, float]]:
    """Find the largest batch that would still fit (None: not known), and the points (batch -> bytes) measured for it.

    It is on the line through the two largest batches compiled: the plan's own; one that surely fits, or that nearly fills
    the memory if everything the step computes were kept; and, where the line goes far beyond, half of where it goes.
    Memory is not quite linear in the batch: the compiler keeps what it can in on-chip memory and recomputes what does
    not fit. Batches near the memory's size also compile fastest: placing arrays in on-chip memory takes minutes.
    No batch is larger than the training split.
    """
    assert plan.chip, "only a chip has a memory to fill"
    limit, parts, batch = plan.chip.hbm, program.layout.parts, plan.batch
    most = max(batch, count_examples(program.data.splits.train) // parts * parts)
    double = costs.made_bytes(step_jaxpr(_resized(program, 2 * batch)))
    each = (double - costs.made_bytes(step_jaxpr(program))) / batch
    points = {batch: plan.memory.total}
    found = _measure_also(program, points, min(most, max(8, int(limit / each) // 8 * 8) * parts), limit)
    if found and found > 4 * max(points) and max(points) < most:
        found = _measure_also(program, points, min(most, found // 2 // parts * parts), limit)
    if points.get(most, math.inf) <= limit:
        return most, points
    return found if found is None else min(found, most), points


def _measure_also(program: Program, points: dict[int, float], batch: int, limit: float) -> int | None:
    """Add the memory of one more batch to the points, and return the batch they extrapolate to."""
    if batch not in points:
        points[batch] = measure(_resized(program, batch))[0].total
    return extrapolate(points, limit, program.layout.parts)


def _resized(program: Program, batch: int) -> Program:
    return dataclasses.replace(program, experiment=dataclasses.replace(program.experiment, batch_size=batch))


def measure(program: Program) -> tuple[Memory, str, float]:
    """Return (what a device holds, the compiled text ("" where the compiler failed), FLOPs of the whole step)."""
    given = _given(program)
    flops = float(step_flops(program))
    try:
        compiled = program.compiled.train_step
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).partition("RESOURCE_EXHAUSTED: ")[2]
        return Memory(given, _used(said, sum(given.values())), one_line(said.split("\n\n")[0])), "", flops
    sizes = compiled.memory_analysis()
    assert sizes is not None, "the compilers of CPU, GPU and TPU report it"
    parts = given | {
        "padding of layouts": max(0, sizes.argument_size_in_bytes - sum(given.values())),
        "results not in place": max(0, sizes.output_size_in_bytes - sizes.alias_size_in_bytes),
        "activations and temporaries": sizes.temp_size_in_bytes,
        "program": sizes.generated_code_size_in_bytes,
    }
    return Memory(parts, sum(parts.values())), compiled.as_text() or "", flops


def _given(program: Program) -> dict[str, int]:
    """Count the bytes of the step's arguments on each device, by what they hold."""

    def bytes_of(tree: object) -> int:
        return sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
        )

    state = program.state_spec
    rows = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.batch_spec))
    return {
        "parameters": bytes_of(state.params),
        "optimizer state": bytes_of(state.opt_state),
        "statistics and average": bytes_of((state.stats, state.ema)),
        "batch": rows // program.layout.parts,
    }


def _used(message: str, given: float) -> float:
    """Read from the compiler's message the bytes that a too large program would have used; nan where it does not say."""
    for pattern, besides in ((r"Used ([\d.]+)([KMGT]?) of", 0.0), (r"temporaries \(([\d.]+)([KMGT]?)\)", given)):
        if said := re.search(pattern, message):
            return float(said[1]) * 1024 ** "_KMGT".index(said[2] or "_") + besides
    return math.nan


def roofline(
    chip: chips.Chip, flops: float, traffic: float, collectives: tuple[costs.Collective, ...]
) -> dict[str, float]:
    """Return the seconds that one device needs for its FLOPs, its bytes of HBM traffic, and what it sends to others."""
    return {
        "compute": flops / chip.flops,
        "memory": traffic / chip.bandwidth,
        "network": sum(each.sent for each in collectives) / chip.ici,
    }


def extrapolate(points: Mapping[int, float], limit: float, parts: int) -> int | None:
    """Return the largest batch whose bytes stay under `limit`, on the line through the two largest points, in whole parts.

    Returns:
        None where the points do not tell (nan: not known), or the larger batch takes no more.
    """
    known = sorted((batch, size) for batch, size in points.items() if not math.isnan(size))[-2:]
    if len(known) < 2 or known[1][1] <= known[0][1]:
        return None
    (low, least), (high, most) = known
    fitting = low + (limit - least) * (high - low) / (most - least)
    return max(0, math.floor(fitting) // parts * parts)


def show(plan: Plan, say: Callable[[str], None] = print) -> None:
    """Print the plan."""
    axes = " ".join(f"{axis}:{size}" for axis, size in plan.mesh.items())
    say(f"planned, not run: {plan.topology} ({plan.num_devices} devices, {axes}), {plan.mode}, batch {plan.batch:,}")
    fits = {True: "fits", False: "does not fit", None: "compiles"}[plan.fits]
    room = f" of {_bytes(plan.chip.hbm)}" if plan.chip else ""
    say(f"memory of a device: {fits}: {_bytes(plan.memory.total)}{room}")
    for part, size in plan.memory.parts.items():
        say(f"  {part:<28} {_bytes(size):>12}")
    if plan.memory.error:
        say(f"  {plan.memory.error}")
    traffic = f", HBM traffic {_bytes(plan.traffic)} a device" if plan.traffic else ""
    say(f"work of a step: {plan.flops:.3g} FLOPs, {plan.flops / plan.num_devices:.3g} a device{traffic}")
    for each in plan.collectives:
        say(f"  {each.count} x {each.kind} over {each.group} devices, {_bytes(each.bytes)} in all")
    if plan.seconds and plan.chip:
        bound = max(plan.seconds, key=lambda name: plan.seconds[name])
        step = plan.seconds[bound]
        times = ", ".join(f"{name} {_seconds(value)}" for name, value in plan.seconds.items())
        say(
            f"roofline: at best {_seconds(step)} a step, {plan.batch / step:,.0f} examples/s, bound by {bound} ({times})"
        )
        say(
            f"  with {plan.chip.flops / 1e12:g} TFLOP/s (bf16 products, also of float32), HBM {plan.chip.bandwidth / 1e9:g} "
            f"GB/s, {plan.chip.ici / 1e9:g} GB/s around one ring; input, latencies and launches come on top"
        )


def show_largest(found: int | None, points: Mapping[int, float], say: Callable[[str], None] = print) -> None:
    """Print the line about the largest batch."""
    line = ", ".join(f"{batch:,} takes {_bytes(size)}" for batch, size in sorted(points.items()))
    about = f"about {found:,}" if found is not None else "not known"
    say(f"largest batch that would fit: {about} (on the line through the last two of: {line})")


def _bytes(size: float) -> str:
    if math.isnan(size):
        return "more"
    unit = min(int(math.log(max(size, 1), 1024)), 4)
    return f"{size / 1024**unit:,.{2 if unit else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def _seconds(value: float) -> str:
    return f"{value * 1e6:,.3g} µs" if value < 1e-3 else f"{value * 1e3:,.3g} ms"
