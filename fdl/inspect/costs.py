"""The cost of a compiled step, read from the compiler's text: collectives and HBM traffic (FLOPs: `fdl.flops`).

XLA's cost analysis counts the body of a loop once and on-chip memory as if it were HBM; here a loop counts as often as it
runs, and what the compiler keeps in on-chip memory (a layout with S(n)) costs no HBM traffic.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fdl.flops import inner_jaxprs

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def made_bytes(jaxpr: Any) -> int:
    """Count the bytes of all that a (closed) jaxpr computes, as if all were kept; of a loop, only its results."""
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [part for value in eqn.params.values() for part in inner_jaxprs(value)]
        if inner and eqn.primitive.name not in ("scan", "while"):
            total += sum(made_bytes(part) for part in inner)
        else:
            arrays = [var.aval for var in eqn.outvars if hasattr(var.aval.dtype, "itemsize")]
            total += sum(array.size * array.dtype.itemsize for array in arrays)
    return total


# ---- the compiler's text --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind and one group size.

    Attributes:
        count: how often they run in a step.
        bytes: of the arrays that they reduce or move, on one device, all together.
        group: devices that take part in each.
    """

    kind: str
    count: int
    bytes: int
    group: int

    @property
    def sent(self) -> float:
        """The bytes that each device must send at least (around a ring)."""
        if self.kind == "collective-permute":
            return float(self.bytes)
        return self.bytes * (self.group - 1) / self.group * (2 if self.kind == "all-reduce" else 1)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    text: str


_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_MOVE_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id",
                 "while", "conditional", "call"}  # fmt: skip


def _computations(hlo: str) -> tuple[str, dict[str, list[_Instruction]]]:
    """Split a module: the name of its entry, and name -> instructions."""
    found: dict[str, list[_Instruction]] = {}
    entry = here = ""
    for line in hlo.splitlines():
        if head := _HEAD.match(line):
            here = head[2]
            found[here] = []
            entry = here if head[1] else entry
        elif here and (match := _LINE.match(line)):
            arguments = match[4].split(")", 1)[0]
            operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
            found[here].append(_Instruction(match[1], match[2], match[3], operands, line))
    return entry, found


def _size(shape: str, *, hbm_only: bool = False, loop: int = 0) -> int:
    """Count the bytes of the arrays in `shape`; in a loop of `loop` steps an array that long is cut, one slice a step."""
    total = 0
    for kind, dims, layout in _ARRAY.findall(shape):
        if hbm_only and "S(" in layout:
            continue
        sizes = [int(size) for size in dims.split(",")] if dims else []
        if loop > 1 and sizes and sizes[0] == loop:
            sizes[0] = 1
        bits = re.search(r"\d+", kind)
        total += math.prod(sizes) * (int(bits[0]) if bits else 8) // 8
    return total


def _called(instruction: _Instruction, *keys: str) -> list[str]:
    return [name for key in keys for name in re.findall(rf"\b{key}=%?([\w.\-]+)", instruction.text)]


def _walk(
    name: str, found: Mapping[str, list[_Instruction]], times: int = 1, loop: int = 0, inside: bool = False
) -> Iterator[tuple[_Instruction, str, int, int, bool]]:
    """Yield every instruction reached from a computation, with its home, how often it runs, the loop it is in, and whether
    it is inside a fusion, where nothing goes through HBM."""
    for it in found.get(name, []):
        yield it, name, times, loop, inside
        if it.opcode == "while":
            steps = _trips(it, found)
            yield from _walk(_called(it, "body")[0], found, times * steps, steps, inside)
        elif it.opcode == "conditional":
            for part in re.findall(r"%([\w.\-]+)", it.text.split("branch_computations=", 1)[-1].split("}")[0]):
                yield from _walk(part, found, times, loop, inside)
        elif it.opcode in ("call", "fusion", "async-start"):
            for part in _called(it, "to_apply", "calls"):
                yield from _walk(part, found, times, loop, inside or it.opcode != "call")


def _trips(loop: _Instruction, found: Mapping[str, list[_Instruction]]) -> int:
    """Find how often a loop runs: as the text says, else the bound in its condition (a scan counts from 0), else once."""
    if known := re.search(r"known_trip_count\W+n\W+(\d+)", loop.text):
        return int(known[1])
    condition = found.get(_called(loop, "condition")[0], [])
    bounds = [re.search(r"constant\((\d+)\)", it.text) for it in condition if it.opcode == "constant"]
    limits = [int(bound[1]) for bound in bounds if bound]
    return limits[0] if len(limits) == 1 else 1


def collectives(hlo: str, num_devices: int) -> tuple[Collective, ...]:
    """List the collectives that one step runs, from the text of a compiled module.

    An asynchronous pair counts once. TPU programs write a reduce-scatter as a fusion of that name around an all-reduce.
    """
    entry, found = _computations(hlo)
    types = {home: {it.name: it.shape for it in body} for home, body in found.items()}
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    sizes: collections.Counter[tuple[str, int]] = collections.Counter()
    for it, home, times, _, _ in _walk(entry, found):
        kind = it.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        given, made = sum(_size(types[home].get(name, "")) for name in it.operands), _size(it.shape)
        if it.opcode.endswith("-start"):
            made -= given  # in one tuple, the results come after the operands
        kind = "reduce-scatter" if kind == "all-reduce" and "reduce-scatter" in home else kind
        key = kind, _group(it.text, num_devices)
        counts[key] += times
        sizes[key] += times * max(given, made)
    return tuple(Collective(kind, counts[kind, n], sizes[kind, n], n) for kind, n in sorted(counts))


def _group(text: str, num_devices: int) -> int:
    """Find how many devices take part; replica groups are written as {{0,1},{2,3}}, [2,4]<=[8], a mesh, or {}."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", text):
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        return math.prod(sizes.get(axis, 1) for axis in re.findall(r"'([^']+)'", mesh[2]))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(iota[1])
    return num_devices


def hbm_traffic(hlo: str) -> int:
    """Count the bytes that one device reads from and writes to HBM in a step, by the compiled module's text.

    Every instruction outside fusions reads its operands and writes its result; slices read as much as they return. In a
    loop an array as long as the loop is read or written one slice a step.
    """
    entry, found = _computations(hlo)
    types = {home: {it.name: it.shape for it in body} for home, body in found.items()}
    total = 0
    for it, home, times, loop, inside in _walk(entry, found):
        if inside or it.opcode in _MOVE_NOTHING or it.opcode.endswith("-done"):
            continue
        total += times * _moved(it, [types[home].get(name, "") for name in it.operands], loop)
    return total


def _moved(it: _Instruction, operands: list[str], loop: int) -> int:
    """Count the bytes of HBM that one instruction reads and writes, given the types of its operands."""
    given = [_size(shape, hbm_only=True, loop=loop) for shape in operands]
    made = _size(it.shape, hbm_only=True, loop=loop)
    if it.opcode.endswith("-start"):
        made = max(0, made - sum(given))  # the tuple repeats the operands
    if it.opcode == "slice-start" and any(given):
        given = [_size(it.shape) - sum(_size(shape) for shape in operands)]
    if it.opcode in ("slice", "dynamic-slice", "gather"):
        given = [min(given[0], _size(it.shape, loop=loop))]
    if it.opcode in ("dynamic-update-slice", "scatter"):
        del given[0]  # in place
        made = sum(given)
    return sum(given) + made
