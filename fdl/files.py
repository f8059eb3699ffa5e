"""Files that are never half written, locks that end with their process, and paths as the user wrote them."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import functools
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from absl import logging

from fdl.errors import RunError, UserError, one_line, printable

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN)
_BADLY_CHOSEN = (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EEXIST,
    errno.ELOOP,
)  # fmt: skip
_POLL = 0.05


def user_path(text: str, what: str) -> Path:
    """Return a path as the user wrote it, with `~` expanded; `what` names it in an error.

    Raises:
        UserError: that home is not known, or the text cannot be a path.
    """
    try:
        if "\0" in text:
            raise ValueError("a path has no NUL byte")
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{what}={printable(text)}: {one_line(error)}; give another path") from error


def write_error(path: Path, error: OSError) -> UserError | RunError:
    """Return what a failed write means: a place that the user chose badly, or a disk that has failed or is full."""
    reason = error.strerror or one_line(error)
    if error.errno in _BADLY_CHOSEN:
        return UserError(f"{printable(path)} cannot be written: {reason}; choose another place")
    return RunError(f"{printable(path)} cannot be written: {reason}; when that is put right the same command goes on")


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing, and rename it to `path` when the block ends without an error.

    Args:
        durable: flush it to the disk before the rename, for what must be there after a power failure.

    Raises:
        UserError, RunError: see `write_error`; `path` is what it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.chmod(beside, 0o644)  # mkstemp's files are private; these are for reading
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)
    except OSError as error:
        raise write_error(path, error) from error


def write_bytes(path: Path, contents: bytes, durable: bool = True) -> None:
    """Write a file completely or not at all; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(contents)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a text as UTF-8, completely or not at all; see `replacing`."""
    write_bytes(path, text.encode(), durable)


def write_json(path: Path, value: object) -> None:
    """Write a JSON value, indented; see `replacing` and `to_json`."""
    write_text(path, to_json(value, indent=1) + "\n")


def write_all(out: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """Write `files` (name -> contents, text as UTF-8) under `out`: all are on the disk before any gets its name.

    Raises:
        UserError, RunError: see `write_error`.
    """
    with contextlib.ExitStack() as waiting:
        for name, contents in files.items():
            file = waiting.enter_context(replacing(out / name))
            try:
                file.write(contents.encode() if isinstance(contents, str) else contents)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise write_error(out / name, error) from error
    return [out / name for name in files]


def to_csv(rows: Iterable[Iterable[object]]) -> str:
    """Return rows of cells, the names of the columns first, as CSV."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()


def to_json(value: object, indent: int | None = None) -> str:
    """Return JSON as RFC 8259 has it: numbers that are not finite, which it lacks, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def try_lock(path: Path, wait: float = 0.0) -> int | None:
    """Lock a file until the descriptor returned is closed or its process ends; None if it is locked already.

    Two threads of one process exclude each other as two processes do. Where the file system has no locks, a warning says
    so once, and nobody is kept out.

    Args:
        wait: seconds to keep trying, math.inf for ever.

    Raises:
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError as error:
            if error.errno not in _TAKEN:
                _warn_no_locks(path.parent, error.strerror)
                return handle
        if time.monotonic() >= until:
            os.close(handle)
            return None
        time.sleep(_POLL)


@contextlib.contextmanager
def locked(path: Path, wait: float = math.inf) -> Iterator[int]:
    """Hold `try_lock`'s lock during a block.

    Raises:
        BlockingIOError: another process has held it for `wait` seconds; the text names that process.
        OSError: the file cannot be opened.
    """
    handle = try_lock(path, wait)
    if handle is None:
        holder = path.read_text(errors="replace").strip() if path.is_file() else ""
        raise BlockingIOError(errno.EWOULDBLOCK, holder or "unknown")
    try:
        yield handle
    finally:
        os.close(handle)


def write_holder(handle: int, text: str) -> None:
    """Write into a locked file who holds it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


@functools.cache
def _warn_no_locks(folder: Path, reason: str) -> None:
    logging.warning("the file system of %s has no locks (%s): two starts in it are not kept apart", folder, reason)
