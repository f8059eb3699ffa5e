"""Starting, killing and signalling runs by way of the fork server, and what a finished run is compared by."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faults.points import Point

TESTS = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent


class Server:
    """The client's side of server.py."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.server"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._ended: dict[int, int] = {}
        assert self._read(120) == {"ready": True}

    def start(
        self, argv: Sequence[str], cwd: Path, *points: Point, rows: Path | None = None, log: Path | None = None,
        limits: dict[str, int] | None = None, env: Mapping[str, str] | None = None,
    ) -> Start:  # fmt: skip
        """One `python -m fdl.main ARGV` with the failpoints armed, in a session of its own."""
        log = log or cwd / "log"
        log.write_text("")
        what = {
            "argv": list(argv), "cwd": str(cwd), "log": str(log), "rows": str(rows) if rows else None, "limits": limits or {},
            "env": {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"], **(env or {})},
            "points": [dataclasses.asdict(p) for p in points],
        }  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write((json.dumps(what) + "\n").encode())
        while True:
            said = self._read(60)
            if "status" not in said:
                self._ended.pop(said["pid"], None)  # numbers come round again
                return Start(self, said["pid"], log)
            self._ended[said["pid"]] = said["status"]

    def status(self, pid: int, timeout: float) -> int | None:
        """The exit code of a start (-9: killed), None where it still runs after `timeout` seconds."""
        until = time.monotonic() + timeout
        while pid not in self._ended:
            said = self._read(max(0.0, until - time.monotonic()))
            if not said:
                return None
            self._ended[said["pid"]] = said["status"]
        return self._ended[pid]

    def _read(self, timeout: float) -> dict[str, Any]:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            return {}
        line = self.process.stdout.readline()
        assert line, "the fork server has died"
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@dataclasses.dataclass
class Start:
    """One start of a run."""

    server: Server
    pid: int
    log: Path

    def wait(self, timeout: float = 120) -> int:
        """Its exit code; an error where it does not come."""
        status = self.server.status(self.pid, timeout)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {timeout} s:\n{self.said()}")
        return status

    def ended(self, timeout: float) -> int | None:
        """Its exit code once it has ended, None if it still runs after `timeout` seconds."""
        return self.server.status(self.pid, timeout)

    def send(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def errors(self) -> list[str]:
        """What it printed as an error or a traceback."""
        lines = self.said().splitlines()
        return [line for line in lines if line.startswith(("fdl: error", "Traceback", "Fatal", "Exception", "Error"))]


@contextlib.contextmanager
def server() -> Iterator[Server]:
    running = Server()
    try:
        yield running
    finally:
        running.close()


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
