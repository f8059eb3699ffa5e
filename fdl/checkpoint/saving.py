"""Checkpoints that are complete or absent: Orbax writes the arrays, a sha256 manifest written last makes them count.

checkpoints/<step>/state/          Orbax: every leaf of the state by its name
checkpoints/<step>/manifest.json   see `fdl.checkpoint.manifest`
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import logging as standard_logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from fdl.checkpoint import manifest
from fdl.checkpoint.manifest import Saved
from fdl.distributed import processes
from fdl.types import RunError, UserError, named_leaves, one_line, unnamed

if TYPE_CHECKING:
    import orbax.checkpoint as ocp  # elsewhere where it is used: the first step does not wait for it

T = TypeVar("T")

KEEP = 2
_MOST_TRIES = 10


def state_sha256(state: object) -> str:
    """Digest every leaf's name, dtype, shape and bytes: equal digests mean equal runs. Every process must call it."""
    digest = hashlib.sha256()
    for name, leaf in named_leaves(state).items():
        array = np.ascontiguousarray(processes.to_host(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def restore(saved: Saved, like: T) -> T:
    """Restore the state of a checkpoint, placed like `like` (arrays, or specs with shardings).

    Raises:
        UserError: a leaf is missing, unknown, or of another shape or dtype than the experiment's. Nothing is cast.
    """
    wanted = named_leaves(like)
    for name in sorted(wanted.keys() | saved.leaves.keys()):
        have = saved.leaves.get(name)
        want = [str(wanted[name].dtype), list(wanted[name].shape)] if name in wanted else None
        if have is None or want is None or list(have) != want:
            raise UserError(
                f"{saved.path} does not fit this experiment: {name} is {_describe(have)} there and {_describe(want)} "
                "here; use the settings it was trained with or a new --workdir"
            )
    import orbax.checkpoint as ocp

    specs = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in wanted.items()}
    with _plain_path(saved.path) as folder, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        leaves = checkpointer.restore(folder / "state", args=ocp.args.StandardRestore(specs))
    return unnamed(like, leaves)


def restore_chosen(choose: Callable[[], Saved], like: T) -> tuple[T, Saved]:
    """Restore the checkpoint that `choose` has verified, so that its files are hashed once.

    A run that is being trained deletes old steps: if the chosen one disappears meanwhile, another is chosen.

    Raises:
        UserError, RunError: see `restore` and `choose`.
    """
    for tries_left in reversed(range(_MOST_TRIES)):
        saved = None
        try:
            saved = choose()
            return restore(saved, like), saved
        except Exception as error:
            gone = isinstance(error, FileNotFoundError) if saved is None else not manifest.is_sealed(saved.path)
            if not gone or not tries_left or not processes.alone():  # of several processes only some may have failed
                raise
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """Yield another name of `folder`, absolute and without `*`, `?` and `[`.

    Orbax looks for the parts of a checkpoint by `Path.glob` of etils, which also reads the folder's own name as a
    pattern: under `a[1]b` it finds those of `a1b`, writes an empty database, and reports no error.
    """
    folder = folder.absolute()
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fdl-") as made:
        link = Path(made) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _describe(leaf: Any) -> str:
    return "absent" if leaf is None else f"{leaf[0]}{list(leaf[1])}"


def _needed(num_bytes: int) -> int:
    return 2 * num_bytes + (1 << 20)


def _check_room(root: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(root).free
    if free < _needed(num_bytes):
        raise RunError(
            f"no room to save a checkpoint in {root}: {_needed(num_bytes):,} bytes needed, {free:,} free; earlier ones are "
            "kept; make room, and the same command goes on"
        )


def _not_saved(folder: Path, num_bytes: int, error: BaseException) -> RunError:
    if isinstance(error.__cause__, OSError):
        error = error.__cause__  # the cause of `files.write_error`, whose line would repeat this one
    free = shutil.disk_usage(folder.parent).free
    # TensorStore's text is a page long, and calls a full disk RESOURCE_EXHAUSTED, as XLA does full memory.
    number = re.search(r"os_error_code='(\d+)'", str(error))
    known = error.strerror if isinstance(error, OSError) else None
    reason = os.strerror(int(number[1])) if number else known or one_line(error)
    return RunError(
        f"a checkpoint could not be saved in {folder}: {reason} ({_needed(num_bytes):,} bytes needed, "
        f"{free:,} free); earlier ones are kept; when that is put right the same command goes on"
    )


def _check_opens(written: Path, leaves: Mapping[str, Any]) -> None:
    """Refuse a step that Orbax wrote without an error but cannot open again, so that it never counts."""
    import orbax.checkpoint as ocp

    found = ocp.StandardCheckpointHandler().metadata(written)
    held = {
        name: [str(np.dtype(leaf.dtype)), list(leaf.shape)] for name, leaf in dict(found.tree if found else {}).items()
    }
    if held != {name: list(leaf) for name, leaf in leaves.items()}:
        raise RuntimeError("Orbax cannot open what it has written")


def _finish(
    checkpointer: ocp.AsyncCheckpointer, folder: Path, written: Path, body: dict[str, Any], keep: int, first: bool
) -> None:
    """Finish a save in the background, when the arrays are on the disk: open, hash, seal, and only then drop older steps."""
    checkpointer.wait_until_finished()
    if not first:
        return  # when process 0 has waited, the arrays of all processes are written
    _check_opens(written, body["leaves"])
    manifest.seal(folder, body | {"files": manifest.file_digests(folder)})
    manifest.drop_older(folder, keep)


def _is_saved(folder: Path, num_bytes: int, progress: Mapping[str, object]) -> bool:
    """Return whether this state is already saved, and update its progress; if not, prepare its folder.

    Raises:
        RunError: the folder cannot be made, or something of the user's is in its place.
    """
    try:
        if isinstance(manifest.verify(folder), Saved):
            manifest.reseal(folder, progress)
            return True
        if folder.exists() and not manifest.is_own(folder):
            raise RunError(f"{folder} is in the way of a checkpoint and not of fdl: move it, and start again")
        if folder.exists():  # damaged, so the resume skipped it: this is the same step, made again
            shutil.rmtree(folder)
        _check_room(folder.parent, num_bytes)
        folder.mkdir()  # fails at once where it is forbidden; Orbax would retry for minutes
    except OSError as error:
        raise _not_saved(folder, num_bytes, error) from error
    return False


Save = Callable[[int, Any, Mapping[str, Any]], None]


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.AsyncCheckpointer]:
    import orbax.checkpoint as ocp

    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    try:
        yield checkpointer
    finally:
        with contextlib.suppress(Exception):  # it raises the last save's error again, which was reported
            checkpointer.close()


def _write(checkpointer: ocp.AsyncCheckpointer, to: Path, leaves: Mapping[str, object]) -> None:
    """Return when the arrays are copied; Orbax's threads write them."""
    import orbax.checkpoint as ocp

    checkpointer.save(to, args=ocp.args.StandardSave(leaves))


def _told_once(record: standard_logging.LogRecord) -> bool:
    """Filter the many tracebacks that Orbax's threads log of one failure: the user sees it as one line."""
    return record.levelno < standard_logging.ERROR or not (record.name == "asyncio" or "orbax" in record.pathname)


@contextlib.contextmanager
def saver(root: Path, keep: int = KEEP) -> Iterator[Save]:
    """Yield `save(step, state, progress)`, which returns once the arrays are copied; a thread writes and hashes them.

    The newest `keep` steps are kept, and each one's `progress.best_step`. Leaving the context waits for the last save.
    Every process of a run must call it with its part of the state; process 0 seals and deletes.

    Raises:
        RunError: a save failed. The next `save` or leaving the context raises it, so none goes unreported.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in ("absl", "asyncio"):
        standard_logging.getLogger(name).addFilter(_told_once)
    pending: list[tuple[Future[None], Path, int]] = []
    with _plain_path(root) as plain, contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as executor:
        orbax = functools.cache(lambda: stack.enter_context(_orbax()))  # opened by the first save

        def settle() -> None:
            while pending:
                future, folder, num_bytes = pending.pop()
                try:
                    future.result()
                except Exception as error:
                    raise _not_saved(folder, num_bytes, error) from error

        def save(step: int, state: object, progress: Mapping[str, object]) -> None:
            settle()  # one save at a time is in host memory; the error of the last one is raised here
            folder = root.absolute() / str(step)
            leaves = named_leaves(state)
            num_bytes = sum(leaf.nbytes for leaf in leaves.values())

            # Process 0 alone looks at the disk and deletes; the others must not start Orbax's collective save without it.
            if processes.from_first(lambda: _is_saved(folder, num_bytes, progress)):
                return
            body = {
                "step": step,
                "progress": dict(progress),
                "leaves": {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in leaves.items()},
            }
            written = plain / str(step) / "state"
            try:
                _write(orbax(), written, leaves)
            except Exception as error:  # of any type: Orbax and TensorStore raise many
                raise _not_saved(folder, num_bytes, error) from error
            # `folder` is the user's own name, for errors and the manifest; `written`, under the link, is for Orbax alone.
            finish = functools.partial(_finish, orbax(), folder, written, body, keep, processes.is_first())
            pending.append((executor.submit(finish), folder, num_bytes))

        try:
            yield save
        except BaseException:
            with contextlib.suppress(Exception):
                settle()  # finish the save under way; report the error that ends the run, not this one's
            raise
        settle()
