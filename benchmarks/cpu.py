"""fdl beside its peers on CPUs: the same net, rows, batch and dtype, alternated, each measurement in a process of its own.

Compiled programs are kept in a folder of this run alone: the first round finds none, and the later ones those of the first.
A rate is steady: after the first step and a second of others, over four seconds or more; every system reads its loss
equally often. A peer that is not installed or fails is one line of the table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.workloads import ALL, ASKED_FOR, FLOORS, WORKLOADS, Floor, Workload, flops, spec
from fdl.types import UserError

OWN = "fdl_loop"
Result = dict[str, Any]
"""What a script printed, or {"error": ...}."""
Results = dict[str, dict[str, list[Result]]]
"""Workload -> system -> a result a round."""


def measure(only: list[str], rounds: int, data_dir: str | None, asked: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row a workload and system; a row a floor; a row a system with its versions; and the rate of a bare product.

    Args:
        asked: these peers for every workload ("all": all of them) instead of each workload's own.

    Raises:
        UserError: a workload or peer is unknown.
    """
    for name, known in [(name, WORKLOADS) for name in only] + [(name, (*ALL, "all")) for name in asked]:
        if name not in known:
            raise UserError(f"{name}: there is no such workload or peer; there are {', '.join(known)}")
    chosen = {name: w for name, w in WORKLOADS.items() if (name in only if only else name not in ASKED_FOR)}
    results: Results = {}
    with tempfile.TemporaryDirectory() as scratch:
        before = matmul(scratch)
        folders = {kind: rows_folder(kind, data_dir, Path(scratch)) for kind in {w.data for w in chosen.values()}}
        for name, workload in chosen.items():
            others = ALL if "all" in asked else tuple(asked) or workload.peers
            told = spec(workload, folder=folders[workload.data])
            results[name] = alternate(
                (OWN, *others), rounds, lambda system: peers.run(system, told, cache=scratch), name
            )
        fastest = max(before, matmul(scratch), key=lambda found: found["flops"])
    rows = [row for name in chosen for row in rows_of(name, WORKLOADS[name], results[name], fastest["flops"], folders)]
    product = {
        "float32 product 2048x2048": _by(fastest),
        "of these the best, GFLOP/s": f"{fastest['flops'] / 1e9:,.0f}",
    }
    return [*rows, *floors_of(results), *versions_of(results), product]


def alternate(
    systems: Sequence[str], rounds: int, run: Callable[[str], Result], name: str = ""
) -> dict[str, list[Result]]:
    """Every system once a round; every second round in the opposite order. One that has failed is not tried again."""
    found: dict[str, list[Result]] = {system: [] for system in systems}
    for number in range(rounds):
        for system in systems[:: -1 if number % 2 else 1]:
            if any("error" in result for result in found[system]):
                continue
            result = run(system)
            found[system].append(result)
            said = result.get("error") or f"{result['rate']:,.0f}/s"
            print(f"{name} round {number + 1}/{rounds} {system}: {said}", file=sys.stderr, flush=True)
    return found


def matmul(cache: str) -> Result:
    """The better of NumPy and XLA; measured before all else and after it."""
    told = {"size": 2048, "dtype": "float32", "seconds": 2.0}
    found = peers.run("matmul", told, cache=cache)
    return {"flops": 0.0, "by": {}} if "error" in found else found


def _by(fastest: Result) -> str:
    return ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in fastest["by"].items())


def rows_folder(kind: str, data_dir: str | None, scratch: Path) -> str | None:
    """A folder of inputs.npy and targets.npy of the real set `kind`, None where it is not in `data_dir`: then rows are drawn."""
    from fdl.data import Request, sources

    if not kind or not data_dir:
        return None
    try:
        train = getattr(sources, kind)(Request("files", Path(data_dir), offline=True)).train
    except UserError:
        return None
    folder = scratch / kind
    folder.mkdir()
    inputs = train["inputs"]
    if "targets" in train:
        np.save(folder / "targets.npy", train["targets"].astype(np.int32))
    else:  # chunks of text, cut into rows of T + 1 tokens
        tokens = inputs[:, : inputs.shape[1] // 2].reshape(-1) if inputs.ndim > 1 else inputs
        inputs = tokens[: len(tokens) // 129 * 129].reshape(-1, 129).astype(np.uint8)
    np.save(folder / "inputs.npy", inputs)
    return str(folder)


def ratios(own: Sequence[Result], other: Sequence[Result], of: str) -> list[float]:
    """Round by round, where both were measured."""
    return [a[of] / b[of] for a, b in zip(own, other, strict=False) if "error" not in a and "error" not in b]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median (range)."""
    if not values:
        return "-"
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def rows_of(
    name: str, workload: Workload, found: Mapping[str, list[Result]], matmul: float, folders: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    rows = []
    unit, per_example = "tokens" if workload.recurrent else "images", flops(workload) / workload.per_row
    for system, results in found.items():
        good = [result for result in results if "error" not in result]
        failed = next((result["error"] for result in results if "error" in result), "")
        rates = [result["rate"] for result in good]
        share = statistics.median(rates) * per_example / matmul if rates and matmul else 0.0
        rows.append({
            "workload": name, "system": "fdl" if system == OWN else system,
            "rate": f"{spread(rates)} {unit}/s" if rates else failed,
            "fdl / it": "" if system == OWN else spread(ratios(found[OWN], results, "rate"), ".2f"),
            "of the matmul rate": f"{share:.0%}" if share else "-",
            "first step s": spread([result["first_step"] for result in good], ".1f"),
            "peak MiB": spread([result["peak"] / 2**20 for result in good]),
            "parameters": f"{good[0]['parameters']:,}" if good else "-",
            "loss (steps)": f"{good[-1]['loss']:.3f} ({good[-1]['steps']:,})" if good else "-",
            "rows": workload.data if folders[workload.data] else "drawn",
            "_results": results,
        })  # fmt: skip
    return rows


def floors_of(results: Results) -> list[dict[str, Any]]:
    """The floors of the workloads that were measured: reached, least and aim."""
    return [
        {"measure": floor.measure, "reached": f"{value:.2f}" if value == value else "not measured",
         "at least": floor.bound, "aim": floor.aim, "_value": value}
        for floor in FLOORS if floor.workload in results for value in [reached(floor, results[floor.workload])]
    ]  # fmt: skip


def reached(floor: Floor, found: Mapping[str, list[Result]]) -> float:
    """The median over the rounds of fdl's figure over the peer's; NaN where one of them has none."""
    others = [system for system in found if system != OWN] if floor.peer == "fastest" else [floor.peer]
    each = [ratios(found.get(OWN, []), found.get(system, []), floor.of) for system in others]
    medians = [statistics.median(values) for values in each if values]
    return min(medians) if medians else float("nan")


def versions_of(results: Results) -> list[dict[str, Any]]:
    seen: dict[str, str] = {}
    for found in results.values():
        for system, rounds in found.items():
            held = next((result["versions"] for result in rounds if "versions" in result), None)
            if held:
                seen["fdl" if system == OWN else system] = ", ".join(f"{k} {v}" for k, v in held.items())
    return [{"system": system, "versions": versions} for system, versions in seen.items()]
