"""Noticing that another process of the run has died: each holds a lock on a file in the run directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from fdl import files
from fdl.distributed import processes
from fdl.types import UserError

PRESENT_SECONDS = 60.0
"""How long a process waits for its predecessor, which may still be saving, to leave the run."""
_MARK = ".process-"


@contextlib.contextmanager
def present(workdir: Path) -> Iterator[Callable[[], list[str]]]:
    """Hold a lock that ends with this process; yield `missing()`, which names processes that ended without saying "done".

    The lock is on a file of the shared run directory, so it needs no server and outlives no process.
    """
    if processes.alone():
        yield list
        return
    path = workdir / f"{_MARK}{jax.process_index()}"
    own = files.try_lock(path, PRESENT_SECONDS)
    if own is not None:
        files.write_holder(own, f"{socket.gethostname()} pid {os.getpid()}")
    # Ask all before any raises: one that raised alone would leave the others waiting in their next collective.
    blocked = np.flatnonzero(multihost_utils.process_allgather(np.array([own is None])))
    if own is None:
        raise UserError(
            f"process {jax.process_index()} of an earlier start ({path.read_text(errors='replace')}) still holds {path}; "
            "end it, or give another --workdir"
        )
    try:
        if blocked.size:
            raise processes.echoed(UserError, f"process {', '.join(map(str, blocked))} of an earlier start still lives")
        yield lambda: _missing(workdir)
        files.write_holder(own, "done")  # only on a normal end: after an error the others must see this one missing
    finally:
        os.close(own)


def _missing(workdir: Path) -> list[str]:
    found = []
    for number in range(jax.process_count()):
        if number == jax.process_index():
            continue
        with open(workdir / f"{_MARK}{number}") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                continue  # it is held: that process lives (or the file system has no locks)
            who = file.read()
            if who != "done":
                found.append(f"process {number} ({who})")
    return found
