"""The server: lines of JSON in ({argv, env, cwd, out, err, code, hooks}), a pid out; the exit status goes to the file `code`."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

IMPORTED_ONCE = (
    "fdl.main", "fdl.cli.modes", "fdl.tasks.panels.classification", "matplotlib.pyplot", "orbax.checkpoint", "sklearn.metrics",
    "tensorboardX",
)  # fmt: skip


def _reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        beside = Path(children.pop(pid))
        beside.with_suffix(".tmp").write_text(str(os.waitstatus_to_exitcode(status)))
        os.replace(beside.with_suffix(".tmp"), beside)


def _serve() -> dict[str, Any] | None:
    """The next job, in its child; None in the server, when there are no more."""
    children: dict[int, str] = {}
    waiting = b""
    while True:
        _reap(children)
        if b"\n" not in waiting:
            if select.select([0], [], [], 0.02)[0]:
                read = os.read(0, 1 << 16)
                if not read:
                    for pid in children:
                        os.kill(pid, signal.SIGKILL)
                    return None
                waiting += read
            continue
        line, waiting = waiting.split(b"\n", 1)
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            return dict(job)
        children[pid] = job["code"]
        os.write(1, f"{pid}\n".encode())


def _become(job: dict[str, Any]) -> None:
    """Streams, directory and environment as a process started by a shell would have them; then main."""
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (job["out"], os.O_WRONLY | os.O_CREAT), (job["err"], os.O_WRONLY | os.O_CREAT)]
    ):
        handle = os.open(path, flags | os.O_APPEND, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.argv = ["fdl", *job["argv"]]
    warnings.resetwarnings()
    warnings.simplefilter("ignore")  # of the fork; JAX has not started a thread yet

    from fdl import environment, main
    from processes import hooks

    environment.set_defaults()
    for name, *words in job["hooks"]:
        getattr(hooks, name)(*words)
    try:
        main.main()
    except SystemExit as end:
        # The exit as Python makes it, but for freeing every object one by one, which costs more than a short run.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    os.write(1, b"ready\n")
    job = _serve()
    if job:
        _become(job)
    os._exit(0)
