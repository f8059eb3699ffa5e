"""The fork server: imports are paid once, every start is a fork that goes through `fdl.main.main` to its real end.

Reads a line of JSON a start from standard input, answers with {"pid": ...}, and says {"pid": ..., "status": ...} when
that child has ended. No device has been touched and no thread started before a fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

for name in ("XLA_FLAGS", "NPROC"):
    os.environ.pop(name, None)  # a run's own, not those of the tests
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads would not survive the fork

import fdl  # noqa: E402, F401
from faults import points  # noqa: E402

_EARLY = (
    "fdl.main", "fdl.cli.modes", "experiments.fashion_cnn", "experiments.shakespeare_lstm", "tensorboardX", "jinja2", "PIL.Image",
    "matplotlib.backends.backend_agg", "matplotlib.figure", "sklearn.metrics", "rich.console", "rich.table",
)  # fmt: skip


def main() -> None:
    for name in _EARLY:
        importlib.import_module(name)
    from matplotlib import font_manager

    font_manager.findfont("DejaVu Sans")
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX minds; its threads do not exist yet
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not survive the fork"
    gc.collect()
    gc.freeze()
    ended_r, ended_w = os.pipe()
    os.set_blocking(ended_w, False)
    signal.set_wakeup_fd(ended_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    tell(ready=True)
    while True:
        ready, _, _ = select.select([0, ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
            reap()
        if 0 in ready:
            line = read_line()
            if not line:
                return
            pid = os.fork()
            if not pid:
                return child(json.loads(line), ended_r, ended_w)
            tell(pid=pid)


def tell(**what: Any) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        tell(pid=pid, status=os.waitstatus_to_exitcode(status))


def child(start: dict[str, Any], *pipes: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for handle in pipes:
        os.close(handle)
    os.setsid()
    os.chdir(start["cwd"])
    os.environ |= start["env"]
    log = os.open(start["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name, value in start["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if start["rows"]:
        points.note_rows(Path(start["rows"]))
    for point in start["points"]:
        points.arm(points.Point(**point))
    sys.argv = ["fdl", *start["argv"]]
    from fdl import main as command

    try:
        command.main()
    except KeyboardInterrupt:  # before or behind all that is fdl's: an interpreter's own end
        os._exit(130)


if __name__ == "__main__":
    main()
