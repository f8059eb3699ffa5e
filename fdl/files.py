"""Files that are old or new and never half: one text, one JSON value, or all files of one answer."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdl.types import UserError, one_line, printable


def user_path(text: str, what: str) -> Path:
    """Return a path as the user wrote it, with `~` as the home it stands for; `what` names it in an error.

    Raises:
        UserError: that home is not known, or the text can be no path.
    """
    try:
        if "\0" in text:
            raise ValueError("a path has no NUL byte")
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{what}={printable(text)}: {one_line(error)}; give another path") from error


def replace_text(path: Path, text: str, durable: bool = False) -> None:
    """Written beside its place, then renamed; `durable`: flushed to the disk before that, for what a resume relies on."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "w", newline="") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(beside, path)


def write_json(path: Path, value: Any) -> None:
    """A JSON value, indented, durable."""
    replace_text(path, json.dumps(value, indent=1) + "\n", durable=True)


def write_all(out: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """Writes `files` (name -> contents, text as UTF-8) under `out`: each is complete under its name, or absent.

    Every file is first written under a temporary name, and only when all are on the disk are they renamed.

    Raises:
        UserError: `out` cannot be made or written to.
    """
    waiting: dict[Path, str] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, contents in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=out)
            waiting[out / name] = temporary
            with os.fdopen(handle, "wb") as file:
                file.write(contents.encode() if isinstance(contents, str) else contents)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's files are private; these are for reading
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write under {out}: {error.strerror or error}; choose another --workdir") from error
    finally:
        for temporary in waiting.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return list(waiting)
