"""Archives of pictures: checked member by member and unpacked once into the cache, whole or not at all.

The checks are stricter than those of tarfile's filter "data": plain files alone, no link of any kind, no owner or mode kept.

$XDG_CACHE_HOME/fdl/archives/<sha256 of the archive>/       its pictures and tables, and .unpacked.json, which says how many
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fdl.data.formats.archive_members import COMPRESSIONS, Member, RefusedError, tar_members, zip_members
from fdl.data.formats.images import SUFFIXES
from fdl.data.formats.listing import count_by_suffix, is_ignored
from fdl.data.formats.signatures import LENGTH, content_name
from fdl.environment import cache_dir
from fdl.files import locked
from fdl.types import UserError, one_line, printable

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_FILES = 1_000_000
MAX_RATIO = 200
FREE_BYTES = 1 << 30
"""An archive that unfolds into more than this and into more than MAX_RATIO times its size is a bomb; flat masks pack as well."""
_WRITTEN = (*SUFFIXES, ".csv", ".tsv")
_RECORD = ".unpacked.json"


class Unpacked(NamedTuple):
    """Where an archive's files lie, and what was left in it ("2 .txt"; "" for nothing)."""

    root: Path
    left_out: str


def unpack(path: Path) -> Unpacked:
    """Unpack the archive at `path` unless it is unpacked already; folders around everything in it are skipped.

    Pictures and tables are written, under plain relative names. Its content decides what it is, not its name.

    Raises:
        UserError: no archive, a damaged one, or one with a member that leads out of it, is a link or a device, or unfolds
            into too much; nothing is left of it then.
    """
    where = printable(path)
    kind = _kind(path, where)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    home = cache_dir() / "archives"
    final = home / digest
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(home / f"{digest}.lock"):  # another start may be at it
            record = _read_record(final)
            if record is None:
                record = _unpack_anew(path, kind, where, final)
    except OSError as error:
        raise UserError(
            f"{where} cannot be unpacked into {home}: {error.strerror or one_line(error)}; make room, or set XDG_CACHE_HOME"
        ) from error
    return Unpacked(_top(final), record["left_out"])


def _kind(path: Path, where: str) -> str:
    """Return a key of COMPRESSIONS, or "a zip file"."""
    try:
        with path.open("rb") as file:
            kind = content_name(file.read(LENGTH))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}; correct its rights") from error
    if kind not in COMPRESSIONS and kind != "a zip file":
        held = f"{kind or 'something else'} ({path.stat().st_size:,} bytes)"
        raise UserError(
            f"{where} is neither a folder nor an archive ({', '.join(ARCHIVES)}) but {held}: get it again, or pack it so"
        )
    return kind


def _unpack_anew(path: Path, kind: str, where: str, final: Path) -> dict[str, Any]:
    """Unpack into a folder beside `final`, which then takes its name; return the record of what was done."""
    for left in final.parent.glob(f".{final.name}.*"):  # by a start that was killed: it held the lock that is ours now
        shutil.rmtree(left)
    if final.exists():
        shutil.rmtree(final)
    beside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    limit = max(FREE_BYTES, MAX_RATIO * path.stat().st_size)
    try:
        members = zip_members(path) if kind == "a zip file" else tar_members(path, kind, limit + MAX_FILES * 1024)
        with contextlib.closing(members):
            left_out = _write_members(members, beside, limit)
        record = _measure(beside) | {"left_out": left_out}
        (beside / _RECORD).write_text(json.dumps(record))
        os.replace(beside, final)
        return record
    except RefusedError as error:
        raise UserError(f"{where}: {printable(error)}; make an archive of plain files in class folders") from error
    except Exception as error:  # zipfile and tarfile raise nearly every built-in exception on damaged files
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, gzip.BadGzipFile):
            raise
        raise UserError(f"{where} is damaged: {one_line(error)}; get it again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_members(members: Iterable[Member], folder: Path, limit: int) -> str:
    """Write the members below `folder`, and say what was left out."""
    size = 0
    names: set[PurePosixPath] = set()
    left_out = []
    for member in members:
        name = _clean_name(member.name)
        if name in names:
            raise RefusedError(f"the member {member.name!r} comes twice")
        names.add(name)
        size += member.size
        if len(names) > MAX_FILES or member.size < 0:
            raise RefusedError(f"it holds more than {MAX_FILES:,} files, or one of an impossible size")
        if size > limit:
            raise RefusedError(f"it unfolds into more than {MAX_RATIO} times its size and {FREE_BYTES >> 30} GiB")
        if any(map(is_ignored, name.parts)):
            continue
        if name.suffix.lower() not in _WRITTEN:
            left_out.append(str(name))
        elif member.size > shutil.disk_usage(folder).free:
            raise RefusedError(f"{member.size:,} bytes are needed for {member.name!r}, more than are free")
        else:
            _write(member, folder / name)
    return count_by_suffix(left_out)


def _clean_name(name: str) -> PurePosixPath:
    """Return a member's name as a relative path; Windows' backslashes become slashes.

    Raises:
        RefusedError: it leads out of the folder.
    """
    plain = name.replace("\\", "/")
    path = PurePosixPath(plain)
    if not path.name or plain.startswith("/") or ".." in path.parts or "\0" in plain or plain[1:2] == ":":
        raise RefusedError(f"the member {name!r} leads out of the archive")
    if len(path.parts) > 32 or any(len(os.fsencode(part)) > 250 for part in path.parts):
        raise RefusedError(f"the name {name!r} is too long")
    return path


def _write(member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    content = member.open()
    if content is None:
        raise RefusedError(f"the member {member.name!r} cannot be read")
    with content, open(target, "xb") as file:
        while chunk := content.read(1 << 16):
            written += len(chunk)
            if written > member.size:
                break
            file.write(chunk)
    if written != member.size:
        raise RefusedError(f"the member {member.name!r} is not as long as it says")


def _measure(folder: Path) -> dict[str, Any]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != _RECORD]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Read what `_unpack_anew` wrote; None where it does not match what is there."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        return record if _measure(folder).items() <= record.items() and "left_out" in record else None
    except (OSError, ValueError, AttributeError):
        return None


def _top(folder: Path) -> Path:
    while True:
        inside = [entry for entry in folder.iterdir() if entry.name != _RECORD]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]
