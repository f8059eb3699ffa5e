"""The client's side: start a run of several processes, signal one of them, wait, read what it left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import forked

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENT = Path(__file__).with_name("blobs.py")
HUNG = 124


class TookTooLong(AssertionError):
    pass


@dataclasses.dataclass(frozen=True)
class Process:
    """One process of a run."""

    started: forked.Start
    index: int

    @property
    def pid(self) -> int:
        return self.started.pid

    def code(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        return self.started.code()

    def wait(self, seconds: float) -> int:
        code = self.started.ended(seconds)
        if code is None:
            raise TookTooLong(f"process {self.index} still runs after {seconds} s: {self.err()[-2000:]}")
        return code

    def signal(self, signum: int) -> None:
        self.started.send(signum)

    def out(self) -> str:
        return self.started.out.read_text()

    def err(self) -> str:
        return self.started.err.read_text()

    def errors(self) -> list[str]:
        """What it said to a person."""
        return [line for line in self.err().splitlines() if line.startswith("fdl: error:")]


Start = Callable[..., list[Process]]


@contextlib.contextmanager
def starter(server: forked.Server, folder: Path) -> Iterator[Start]:
    """`start(*flags, processes=2, devices=1, hooks={index: [[name, word, ...]]})` starts a run in `folder`.

    `devices` is of each process, hooks are functions of hooks.py, `each={index: [flag, ...]}` are flags of one process alone.
    Those that still run at the end are killed.
    """
    number = iter(range(1_000_000))
    alive: list[Process] = []

    def start(
        *flags: str, processes: int = 2, devices: int = 1, experiment: Path | str = EXPERIMENT,
        each: dict[int, Sequence[str]] | None = None, hooks: dict[int, Sequence[Sequence[str]]] | None = None,
    ) -> list[Process]:  # fmt: skip
        run, port, made = next(number), free_port(), []
        for index in range(processes):
            argv = [f"--experiment={experiment}", *flags, *(each or {}).get(index, [])]
            if processes > 1:
                argv += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={index}"]
            called = [(f"processes.hooks:{name}", *words) for name, *words in (hooks or {}).get(index, [])]
            out, err = (folder / f"{run}-{index}.{kind}" for kind in ("out", "err"))
            made.append(Process(server.start(argv, folder, out=out, err=err, devices=devices, hooks=called), index))
        alive.extend(made)
        return made

    try:
        yield start
    finally:
        for process in alive:
            process.signal(9)


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
