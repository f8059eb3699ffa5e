"""The command line by way of the fork server: started, awaited, signalled; or run to its end in one call."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
Hook = Sequence[Any]
"""("module:function", *words): called in the child before the run begins."""
Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


def run_in_shell(folder: Path, *args: str) -> Done:
    """The same without the fork server, as a user starts it: for what happens while Python starts."""
    env = os.environ | {"PYTHONPATH": str(TESTS.parent), "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "fdl.main", *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


class Server:
    """The client's side of fork_server.py; threads may share it."""

    def __init__(self) -> None:
        env = os.environ | {
            "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
            "JAX_PLATFORMS": "cpu",
            "MPLBACKEND": "agg",
        }
        for name in ("XLA_FLAGS", "NPROC"):  # a run's own, not those of the tests
            env.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "fork_server.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="fdl-forked-")
        self._numbers, self._asking = itertools.count(), threading.Lock()
        self._jax = {name: value for name, value in env.items() if name.startswith("JAX_")}
        assert self._read() == {"ready": True}

    def start(
        self, argv: Sequence[str], cwd: Path, *, out: Path | None = None, err: Path | None = None, devices: int = 1,
        env: Mapping[str, str] | None = None, hooks: Sequence[Hook] = (), limits: Mapping[str, int] | None = None,
    ) -> Start:  # fmt: skip
        """`python -m fdl.main ARGV` in that folder, in a session of its own.

        Args:
            out, err: files that its streams go to; without `err` both go to `out`.
            devices: virtual CPU devices.
            env: what is added to this process's environment (JAX's settings cannot be: JAX has been imported).
            hooks: called before it begins.
            limits: of `resource.setrlimit`.
        """
        name = Path(self._folder.name) / str(next(self._numbers))
        out = out or name.with_suffix(".out")
        err = err or out
        for path in {out, err}:
            path.write_text("")
        whole = os.environ | {"PYTHONPATH": str(TESTS.parent), "XLA_FLAGS": "", "COLUMNS": "130"} | dict(env or {})
        whole.pop("NPROC", None)
        if devices > 1:
            whole["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        asked = {name: value for name, value in whole.items() if name.startswith("JAX_")}
        assert asked == self._jax, "JAX read its settings when the server imported it"
        what = {
            "argv": list(argv), "cwd": str(cwd), "out": str(out), "err": str(err), "status": str(name), "env": whole,
            "hooks": [list(hook) for hook in hooks], "limits": dict(limits or {}),
        }  # fmt: skip
        with self._asking:
            assert self.process.stdin
            self.process.stdin.write((json.dumps(what) + "\n").encode())
            pid = self._read()["pid"]
        return Start(pid, name, out, err)

    def run(self, argv: Sequence[str], cwd: Path, *, timeout: float = 240, code: int | None = None, **how: Any) -> Done:
        """Run it to its end; with `code` it must be that exit code."""
        name = Path(self._folder.name) / f"run{next(self._numbers)}"
        started = self.start(argv, cwd, out=name.with_suffix(".out"), err=name.with_suffix(".err"), **how)
        done = Done(list(argv), started.wait(timeout), started.out.read_text(), started.err.read_text())
        assert code in (None, done.returncode), done.stderr
        return done

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the fork server has died"
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self._folder.cleanup()


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a command line."""

    pid: int
    status: Path
    out: Path
    err: Path

    def code(self) -> int | None:
        """Its exit code (-9: killed), None while it runs."""
        return int(self.status.read_text()) if self.status.exists() else None

    def ended(self, timeout: float) -> int | None:
        """Its exit code once it has ended, None if it still runs after `timeout` seconds."""
        until = time.monotonic() + timeout
        while (code := self.code()) is None and time.monotonic() < until:
            time.sleep(0.005)
        return code

    def wait(self, timeout: float = 240) -> int:
        """Its exit code; an error where it does not come."""
        code = self.ended(timeout)
        if code is None:
            self.send(signal.SIGKILL)
            raise AssertionError(f"no end after {timeout} s:\n{self.said()}")
        return code

    def send(self, signum: int) -> None:
        """A signal to it alone; none where it has ended."""
        if self.code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def said(self) -> str:
        """All that it printed."""
        return "".join(path.read_text(errors="replace") for path in dict.fromkeys((self.out, self.err)))

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
