"""A process that has imported everything and forks a child for each command line: imports are paid once.

A line of JSON on standard input starts one; the answer is its pid. Its exit status goes into the file that the line
names, once it has ended. A child goes through `fdl.main.main` to its real end. No device has been touched and no thread
started before a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import fdl

EARLY = (
    "fdl.main", "fdl.api", "fdl.cli.modes", "fdl.cli.listing", "fdl.multirun.compare", "fdl.inspect.plan", "fdl.report.report",
    "fdl.tasks.panels.classification", "fdl.tasks.panels.language", "fdl.tasks.panels.regression",
    "experiments.fashion_cnn", "experiments.shakespeare_lstm", "experiments.digits_cnn", "experiments.california_mlp",
    "orbax.checkpoint", "tensorboardX", "jinja2", "PIL.Image", "matplotlib.pyplot", "matplotlib.backends.backend_agg",
    "sklearn.datasets", "sklearn.metrics", "rich.console", "rich.table",
)  # fmt: skip
READY = {"ready": True}


def main() -> None:
    # scikit-learn imports pandas where it is installed, pandas pyarrow, and pyarrow starts a thread; both do without.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    for name in EARLY:
        importlib.import_module(name)
    del sys.modules["pyarrow"]
    from matplotlib import font_manager

    font_manager.findfont("DejaVu Sans")
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not survive the fork"
    gc.collect()
    gc.freeze()
    ended_r, ended_w = os.pipe()
    os.set_blocking(ended_w, False)
    signal.set_wakeup_fd(ended_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    answer(READY)
    children: dict[int, str] = {}
    while True:
        ready, _, _ = select.select([0, ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
            reap(children)
        if 0 not in ready:
            continue
        line = read_line()
        if not line:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return
        job = json.loads(line)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of the fork, and other libraries' threads; there are none yet
            pid = os.fork()
        if not pid:
            return child(job, ended_r, ended_w)
        children[pid] = job["status"]
        answer({"pid": pid})


def answer(what: dict[str, Any]) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        path = Path(children.pop(pid))
        path.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
        path.with_suffix(".new").rename(path)


def child(job: dict[str, Any], *pipes: int) -> None:
    """Become what a shell would have started: its session, streams, directory, environment, limits; then run it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    for handle in pipes:
        os.close(handle)
    os.setsid()
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    fdl.environment.set_defaults()
    sys.path.append(job["cwd"])
    streams = (
        (os.devnull, os.O_RDONLY),
        *((job[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("out", "err")),
    )
    for number, (path, flags) in enumerate(streams):
        handle = os.open(path, flags, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    for name, value in job["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    for where, *words in job["hooks"]:
        module, _, name = where.partition(":")
        getattr(importlib.import_module(module), name)(*words)
    sys.argv = ["fdl", *job["argv"]]
    from fdl import main as command

    code: int | str | None = 1
    try:
        command.main()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # before or behind all that is fdl's: an interpreter's own end
        os._exit(130)
    except BaseException:
        traceback.print_exc()
    # The exit as Python makes it, but for freeing every object one by one: that costs more than a short run.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    main()
