"""Several processes as one run: joining them, and agreeing on a value (`presence` notices that one has died).

With only one process every function here returns at once, without communication.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fdl.types import RunError, UserError, one_line, printable

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def launched_together(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher (srun, mpirun, an indexed Kubernetes job, a GKE TPU slice) started several processes.

    Raises:
        UserError: a launcher's variable does not hold a number.
    """
    tasks = [environ.get(name, "") for name in _TASKS]
    for name, value in zip(_TASKS, tasks, strict=True):
        if value and not value.isdecimal():
            raise UserError(f"{name}={printable(value)} is no number of processes; unset it or give --distributed=off")
    slice_hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return int(next(filter(None, tasks), "1")) > 1 or len(slice_hosts) > 1 or "JOB_COMPLETION_INDEX" in environ


def join(
    distributed: Literal["auto", "on", "off"],
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> None:
    """Make this process one of several; call it before a device is used.

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
        with _silent():  # Gloo prints to stdout when it connects, where --mode=eval promises JSON alone
            multihost_utils.sync_global_devices("fdl: joined")
    except Exception as error:  # JAX's detectors read a launcher's variables and raise anything on odd ones
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise UserError(
            f"the processes of this run cannot find each other ({reason}); give --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I, or --distributed=off for a run of one process"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard standard output during a block, that of native code too."""
    # By file descriptor: replacing sys.stdout would not reach what C++ code writes.
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def alone() -> bool:
    """Return whether the run has only one process. Where none were joined, no backend is started to find out."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
    """Return whether this is the process that prints and writes logs and report."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def from_first(call: Callable[[], T]) -> T:
    """Call in process 0 alone, and return in every process what it returned there (JSON).

    Raises:
        Exception: what process 0 raised; in the others UserError or RunError with `echo`, because one line about it is enough.
    """
    if alone():
        return call()
    answer: dict[str, Any] = {}
    own: Exception | None = None
    if is_first():
        try:
            answer = {"value": call()}
        except Exception as error:  # of any type: the others wait for an answer
            own, answer = error, {"error": str(error), "user": isinstance(error, UserError)}
    answer = json.loads(_broadcast(json.dumps(answer).encode()))
    if "error" in answer:
        raise own or echoed(UserError if answer["user"] else RunError, answer["error"])
    return answer["value"]


def first_then_others(call: Callable[[], T]) -> T:
    """Call in process 0 and, when that has succeeded, in the others, so that downloads and unpacking happen once."""
    done: list[T] = []
    from_first(lambda: done.append(call()))
    return done[0] if done else call()


def require_equal(what: str, value: str) -> None:
    """Refuse to go on unless every process has the same value.

    Raises:
        UserError: some differ from process 0; they are named.
    """
    if alone():
        return
    values = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8))
    others = [i for i in range(len(values)) if not np.array_equal(values[i], values[0])]
    if others:
        raise echoed(
            UserError,
            f"{what} of process {', '.join(map(str, others))} are not those of process 0; start every process with the "
            "same command, code and data",
        )


def check_shared(folder: Path) -> None:
    """Refuse to go on unless every process sees `folder`, which process 0 has made.

    Raises:
        UserError: some do not; they are named.
    """
    if alone():
        return
    seen = multihost_utils.process_allgather(np.array([folder.is_dir()]))
    if not seen.all():
        blind = [i for i in range(len(seen)) if not seen[i].all()]
        raise echoed(
            UserError,
            f"process {', '.join(map(str, blind))} cannot see {folder}; give a --workdir on a file system that all share",
        )


def agreed(local: Callable[[], int]) -> Callable[[], int]:
    """Make `local` common: every process gets the largest value that any of them had at the call before this one.

    All processes must call equally often. The answer is one call late so that nobody waits: by then the small reduction,
    queued between two steps, is long finished.
    """
    if alone():
        return local
    one_each = [next(d for d in jax.devices() if d.process_index == i) for i in range(jax.process_count())]
    mesh = Mesh(np.array(one_each), ("process",))
    largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("process"))
    waiting: list[jax.Array] = []  # results in flight: not read until the next call, so dispatch never blocks

    def ask() -> int:
        mine = jax.make_array_from_process_local_data(split, np.array([local()], np.int32), (len(one_each),))
        waiting.append(largest(mine))
        return int(waiting.pop(0)) if len(waiting) > 1 else 0

    return ask


def to_host(tree: object) -> Any:
    """Copy arrays that may be spread over processes to NumPy; every process must call it."""

    def fetch(leaf: object) -> Any:
        whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return jax.device_get(leaf) if whole else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)


def _broadcast(text: bytes) -> bytes:
    # Two broadcasts: every process must know the array's shape beforehand.
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(text), np.int32)))
    padded = np.frombuffer(text.ljust(length)[:length], np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def echoed(kind: type[UserError] | type[RunError], text: str) -> Exception:
    """Make an error that every process raises and only the first one prints."""
    error = kind(text)
    error.echo = not is_first()
    return error
