"""Several processes as one run: joining them, agreeing on a value, and noticing that one has died.

Everything here is the plain thing at once where there is only one process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fdl.types import RunError, UserError

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
_MARK = ".process-"


def launched_together(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher (srun, mpirun, an indexed Kubernetes job, a GKE TPU slice) started more than one of us."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("OMPI_COMM_WORLD_SIZE") or "1"
    slice_hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return int(tasks) > 1 or len(slice_hosts) > 1 or "JOB_COMPLETION_INDEX" in environ


def join(
    distributed: Literal["auto", "on", "off"],
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> None:
    """Make this process one of several; to be called before a device is touched.

    Args:
        distributed: "on": as the flags say, or by JAX's own detection of the cluster where they are absent; "auto": the
            same where flags are given or a launcher has started several processes, else nothing.
        coordinator: host:port of process 0; with num_processes and process_id, or none of the three.

    Raises:
        UserError: the flags do not go together, or the other processes cannot be found.
    """
    given = [coordinator, num_processes, process_id]
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise UserError("--coordinator, --num_processes and --process_id go together: give all three or none")
        if not 0 <= int(process_id or 0) < int(num_processes or 0):
            raise UserError(f"--process_id={process_id} must be one of 0 ... {int(num_processes or 0) - 1}")
    elif distributed == "off" or (distributed == "auto" and not launched_together()):
        return
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            initialization_timeout=120,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the processes of this run cannot find each other ({reason}); give --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I, or --distributed=off for a run of one process"
        ) from error
    with _silent():  # Gloo says on stdout that it has connected
        multihost_utils.sync_global_devices("fdl: joined")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Standard output thrown away, of native code too."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def alone() -> bool:
    """Whether the run has one process only. No backend is started to find out where nothing was joined."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes logs and report, and speaks."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def from_first(call: Callable[[], T]) -> T:
    """What `call` (its result is JSON) returns or raises in process 0, in every process; the others do not call it.

    Raises:
        UserError, RunError: as in process 0; elsewhere its `echo` is true, for one line about it is enough.
    """
    if alone():
        return call()
    told: dict[str, Any] = {}
    own: UserError | RunError | None = None
    if is_first():
        try:
            told = {"value": call()}
        except (UserError, RunError) as error:
            own, told = error, {"error": str(error), "user": isinstance(error, UserError)}
    told = json.loads(_broadcast(json.dumps(told).encode()))
    if "error" in told:
        raise own or _echo(UserError if told["user"] else RunError, told["error"])
    return told["value"]


def first_then_others(call: Callable[[], T]) -> T:
    """`call` in process 0 and, when that has gone well, in the others: what downloads or unpacks does so once."""
    done: list[T] = []
    from_first(lambda: done.append(call()))
    return done[0] if done else call()


def check_same(what: str, value: str) -> None:
    """Every process must hold the same value.

    Raises:
        UserError: it names the processes that differ from process 0.
    """
    if alone():
        return
    values = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8))
    others = [i for i in range(len(values)) if not np.array_equal(values[i], values[0])]
    if others:
        raise _echo(
            UserError,
            f"{what} of process {', '.join(map(str, others))} are not those of process 0; start every process with the "
            "same command, code and data",
        )


def check_shared(folder: Path) -> None:
    """Every process must see `folder`, which process 0 has made.

    Raises:
        UserError: some do not.
    """
    if alone():
        return
    seen = multihost_utils.process_allgather(np.array([folder.is_dir()]))
    if not seen.all():
        blind = [i for i in range(len(seen)) if not seen[i].all()]
        raise _echo(
            UserError,
            f"process {', '.join(map(str, blind))} cannot see {folder}; give a --workdir on a file system that all share",
        )


def agreed(local: Callable[[], int]) -> Callable[[], int]:
    """`local` made common: every process gets the largest value that any of them had at the call before this one.

    All processes must call equally often. The answer is one call late so that nobody waits: by then the tiny reduction,
    queued between two steps, has long been done.
    """
    if alone():
        return local
    one_each = [next(d for d in jax.devices() if d.process_index == i) for i in range(jax.process_count())]
    mesh = Mesh(np.array(one_each), ("process",))
    largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("process"))
    waiting: list[jax.Array] = []

    def ask() -> int:
        mine = jax.make_array_from_process_local_data(split, np.array([local()], np.int32), (len(one_each),))
        waiting.append(largest(mine))
        return int(waiting.pop(0)) if len(waiting) > 1 else 0

    return ask


def to_host(tree: Any) -> Any:
    """NumPy copies of arrays that may be spread over processes; every process must call it."""

    def fetch(leaf: Any) -> Any:
        whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return jax.device_get(leaf) if whole else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)


# ---- who is still there ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def present(workdir: Path) -> Iterator[Callable[[], list[str]]]:
    """Hold a lock that ends with this process; `missing()` names the processes whose locks have ended without a goodbye.

    The lock is on a file of the shared run directory, so it needs no server and outlives no process.
    """
    if alone():
        yield list
        return
    own = os.open(workdir / f"{_MARK}{jax.process_index()}", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(own, fcntl.LOCK_EX)
    _write(own, f"{socket.gethostname()} pid {os.getpid()}")
    multihost_utils.sync_global_devices("fdl: present")
    try:
        yield lambda: _missing(workdir)
        _write(own, "done")
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
                continue  # it is held: that process lives
            who = file.read()
            if who != "done":
                found.append(f"process {number} ({who})")
    return found


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _broadcast(text: bytes) -> bytes:
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(text), np.int32)))
    padded = np.frombuffer(text.ljust(length)[:length], np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def _echo(kind: type[UserError] | type[RunError], text: str) -> Exception:
    """An error that every process raises and only the first one prints."""
    error = kind(text)
    error.echo = not is_first()
    return error
