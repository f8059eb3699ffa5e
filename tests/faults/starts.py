"""Starting runs with failpoints armed, and what a finished run is compared by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import forked

from faults.points import Point

HERE = Path(__file__).resolve().parent


def start(
    server: forked.Server, argv: Sequence[str], cwd: Path, *points: Point, rows: Path | None = None,
    log: Path | None = None, limits: Mapping[str, int] | None = None,
) -> forked.Start:  # fmt: skip
    """One `python -m fdl.main ARGV` with the failpoints armed; the rows that it is fed are noted in `rows`."""
    hooks: list[forked.Hook] = [("faults.points:note_rows", str(rows))] if rows else []
    hooks += [("faults.points:arm", dataclasses.asdict(point)) for point in points]
    return server.start(argv, cwd, out=log or cwd / "log", hooks=hooks, limits=limits)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What two runs with the same bits have in common."""

    state_sha256: str
    metrics: dict[str, float]
    rows: tuple[str, ...]
    fed: dict[int, str]


def outcome(workdir: Path, fed: Path) -> Outcome:
    """Of a finished run. Each start's steps must be one stretch, and a step is fed the same rows whenever it is made."""
    summary = json.loads((workdir / "summary.json").read_text())
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = tuple(json.dumps({k: v for k, v in row.items() if k != "examples_per_second"}) for row in logged)
    examples: dict[int, str] = {}
    before: dict[str, int] = {}
    for line in fed.read_text().splitlines():
        pid, step, ids = line.split(" ", 2)
        assert examples.setdefault(int(step), ids) == ids, f"step {step} was fed other rows"
        assert before.get(pid, int(step) - 1) == int(step) - 1, f"a start left out steps before {step}"
        before[pid] = int(step)
    return Outcome(summary["state_sha256"], summary["metrics"], rows, examples)


def most_repeated(fed: Path) -> int:
    """The largest number of steps that a start had to make again."""
    last, most, reached = None, 0, -1
    for line in fed.read_text().splitlines():
        pid, step, _ = line.split(" ", 2)
        if pid != last:
            most, last = max(most, reached + 1 - int(step)), pid
        reached = int(step)
    return most


def leftovers(workdir: Path) -> list[str]:
    """Temporary files and unsealed checkpoints: none may outlive a finished run."""
    found = [p for p in workdir.rglob("*") if "tmp" in p.name and "tensorboard" not in str(p)]
    found += [p for p in (workdir / "checkpoints").iterdir() if not (p / "manifest.json").exists()]
    return [str(p.relative_to(workdir)) for p in found]
