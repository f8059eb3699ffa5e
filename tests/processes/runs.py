"""The client's side: start a run of several processes, signal one of them, wait, read what it left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENT = Path(__file__).with_name("blobs.py")
HUNG = 124


class TookTooLong(AssertionError):
    pass


@dataclasses.dataclass(frozen=True)
class Process:
    """One process of a run."""

    pid: int
    index: int
    code_file: Path
    err_file: Path
    out_file: Path
    started: float

    def code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        return int(self.code_file.read_text()) if self.code_file.exists() else None

    def wait(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        while (code := self.code()) is None:
            if time.monotonic() > end:
                raise TookTooLong(f"process {self.index} still runs after {seconds} s: {self.err()[-2000:]}")
            time.sleep(0.01)
        return code

    def signal(self, signum: int) -> None:
        if self.code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def err(self) -> str:
        return self.err_file.read_text()

    def errors(self) -> list[str]:
        """What it said to a person."""
        return [line for line in self.err().splitlines() if line.startswith("fdl: error:")]


Start = Callable[..., list[Process]]


@contextlib.contextmanager
def fork_server(folder: Path) -> Iterator[Start]:
    """`start(*flags, processes=2, devices=1, hooks={index: [[name, word, ...]]})` starts a run; its streams go to `folder`.

    `devices` is of each process. `each={index: [flag, ...]}` are flags of one process alone.
    """
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "COLUMNS": "120",
    }
    env |= {"MPLBACKEND": "agg"}
    server = subprocess.Popen(
        [sys.executable, "-m", "processes.server"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    )
    assert server.stdin
    assert server.stdout
    stdin, stdout = server.stdin, server.stdout
    assert stdout.readline() == b"ready\n"
    number = iter(range(1_000_000))
    alive: list[Process] = []
    asking = threading.Lock()

    def start(
        *flags: str, processes: int = 2, devices: int = 1, experiment: Path | str = EXPERIMENT,
        each: dict[int, Sequence[str]] | None = None, hooks: dict[int, Sequence[Sequence[str]]] | None = None,
    ) -> list[Process]:  # fmt: skip
        run, port, made = next(number), free_port(), []
        for index in range(processes):
            argv = [f"--experiment={experiment}", *flags, *(each or {}).get(index, [])]
            if processes > 1:
                argv += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={index}"]
            flag = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
            name = f"{run}-{index}"
            files = {kind: str(folder / f"{name}.{kind}") for kind in ("out", "err", "code")}
            job = {
                "argv": argv, "cwd": str(folder), "env": {"XLA_FLAGS": flag}, "hooks": (hooks or {}).get(index, []), **files,
            }  # fmt: skip
            with asking:
                stdin.write(json.dumps(job).encode() + b"\n")
                stdin.flush()
                pid = int(stdout.readline())
            paths = [Path(files[kind]) for kind in ("code", "err", "out")]
            made.append(Process(pid, index, *paths, time.monotonic()))
        alive.extend(made)
        return made

    try:
        yield start
    finally:
        for process in alive:
            process.signal(9)
        stdin.close()
        server.wait(120)
        stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_all(processes: list[Process], seconds: float = 120) -> list[int]:
    return [process.wait(seconds) for process in processes]


def rows(workdir: Path) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(OSError):
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def wait_for_step(workdir: Path, step: int, processes: list[Process], seconds: float = 60) -> None:
    """Until a row of that step or a later one is written."""
    end = time.monotonic() + seconds
    while not any(row["step"] >= step for row in rows(workdir)):
        dead = [f"{p.index}: {p.code()} {p.err()[-1500:]}" for p in processes if p.code() is not None]
        if dead or time.monotonic() > end:
            raise TookTooLong(f"step {step} was not reached; ended: {dead}")
        time.sleep(0.01)


def summary(workdir: Path) -> dict[str, Any]:
    return dict(json.loads((workdir / "summary.json").read_text()))
