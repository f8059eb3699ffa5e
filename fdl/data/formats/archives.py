"""Archives of class folders: checked member by member and unpacked once into the cache, whole or not at all.

The checks are stricter than those of tarfile's filter "data": plain files alone, no link of any kind, no owner or mode kept.

$XDG_CACHE_HOME/fdl/archives/<sha256 of the archive>/       its images, and .unpacked.json, which says how many and how large
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fdl.data.formats.images import SUFFIXES
from fdl.environment import cache_dir
from fdl.files import locked
from fdl.types import UserError, one_line, printable

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_BYTES = 16 << 30
MAX_FILES = 1_000_000
MAX_RATIO = 200
"""Pictures hardly shrink, so an archive that unfolds into more than this many times its size holds something else."""
_FREE_BYTES = 16 << 20  # below this the ratio says nothing
_MAX_READ = 1 << 20  # the most that is asked of a tar at once, but for a header that lies about its size
_RECORD = ".unpacked.json"
Member = tuple[str, int, IO[bytes]]


def unpack(path: Path) -> Path:
    """The folder that holds what the archive at `path` held; folders around everything in it are stepped into.

    Only images are written (names that end as `fdl.data.formats.images.SUFFIXES`), under plain relative names.

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
            if not _whole(final):
                _unpack_anew(path, kind, where, final)
    except OSError as error:
        raise UserError(
            f"{where} cannot be unpacked into {home}: {error.strerror or one_line(error)}; make room, or set XDG_CACHE_HOME"
        ) from error
    return _top(final)


def _kind(path: Path, where: str) -> str:
    """ "zip", "tar" or "gz", by name and content."""
    suffix = next((end for end in ARCHIVES if path.name.lower().endswith(end)), None)
    if suffix is None or not path.is_file():
        raise UserError(f"{where} is neither a folder nor an archive ({', '.join(ARCHIVES)}): give one of these")
    try:
        with path.open("rb") as file:
            start = file.read(265)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}; mend its rights") from error
    kinds = {"zip": start[:2] == b"PK", "gz": start[:2] == b"\x1f\x8b", "tar": start[257:262] == b"ustar"}
    found = next((kind for kind, fits in kinds.items() if fits), None)
    wanted = {".zip": "zip", ".tar": "tar"}.get(suffix, "gz")
    if found != wanted:
        is_html = start.lstrip()[:1] == b"<"
        what = (
            "an HTML page"
            if is_html
            else f"a {found} file"
            if found
            else f"{start[:4].hex(' ') or 'nothing'} at its start"
        )
        size = path.stat().st_size
        raise UserError(f"{where} is no {suffix} archive but {what} ({size:,} bytes): get it again, or rename it")
    return wanted


def _unpack_anew(path: Path, kind: str, where: str, final: Path) -> None:
    """Into a folder beside `final`, which then takes its name."""
    for left in final.parent.glob(f".{final.name}.*"):  # by a start that was killed: it held the lock that is ours now
        shutil.rmtree(left)
    if final.exists():
        shutil.rmtree(final)
    beside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        count = size = 0
        names: set[str] = set()
        with contextlib.closing((_zip_members if kind == "zip" else _tar_members)(path, kind)) as members:
            for name, declared, content in members:
                target = _checked(name, names)
                size += declared
                count += 1
                _check_amount(count, size, path.stat().st_size, shutil.disk_usage(beside).free, declared)
                if target is not None:
                    _write(content, beside / target, declared)
        _record(beside).write_text(json.dumps(_measure(beside)))
        os.replace(beside, final)
    except _Refused as error:
        raise UserError(f"{where}: {printable(error)}; make an archive of plain files in class folders") from error
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, gzip.BadGzipFile):
            raise
        raise UserError(f"{where} is damaged: {one_line(error)}; get it again") from error
    except Exception as error:  # zipfile and tarfile raise nearly every built-in exception on damaged files
        raise UserError(f"{where} is damaged: {one_line(error)}; get it again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _checked(name: str, seen: set[str]) -> PurePosixPath | None:
    """Where a member goes, None for what is no image.

    Raises:
        _Refused: its name leads out of the folder, or comes twice.
    """
    parts = PurePosixPath(name).parts
    if not name or name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
        raise _Refused(f"the member {name!r} leads out of the archive")
    if len(parts) > 32 or any(len(os.fsencode(part)) > 250 for part in parts):
        raise _Refused(f"the name {name!r} is too long")
    clean = PurePosixPath(*parts)
    if str(clean) in seen:
        raise _Refused(f"the member {name!r} comes twice")
    seen.add(str(clean))
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return None if hidden or clean.suffix.lower() not in SUFFIXES else clean


def _check_amount(count: int, size: int, packed: int, free: int, declared: int) -> None:
    if declared < 0 or count > MAX_FILES or size > MAX_BYTES:
        raise _Refused(f"it unfolds into more than {MAX_FILES:,} files or {MAX_BYTES >> 30} GiB")
    if size > _FREE_BYTES and size > MAX_RATIO * packed:
        raise _Refused(f"it unfolds into more than {MAX_RATIO} times its {packed:,} bytes")
    if declared > free:
        raise _Refused(f"{declared:,} bytes are needed for the next file and {free:,} are free")


def _write(content: IO[bytes], target: Path, declared: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(target, "xb") as file:
        while chunk := content.read(1 << 16):
            written += len(chunk)
            if written > declared:
                break
            file.write(chunk)
    if written != declared:
        raise _Refused(f"the member {target.name!r} is not as long as it says")


def _zip_members(path: Path, kind: str) -> Generator[Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            unix = info.external_attr >> 16
            if stat.S_IFMT(unix) not in (0, stat.S_IFREG):
                raise _Refused(f"the member {info.filename!r} is a link or a device")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused(f"the member {info.filename!r} is encrypted or packed in an unusual way")
            with archive.open(info) as content:
                yield info.filename, info.file_size, content


def _tar_members(path: Path, kind: str) -> Generator[Member, None, None]:
    with path.open("rb") as raw, gzip.open(raw) if kind == "gz" else contextlib.nullcontext(raw) as file:
        with tarfile.open(fileobj=cast(Any, _Bounded(cast(IO[bytes], file))), mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise _Refused(f"the member {member.name!r} is a link, a device or sparse")
                content = archive.extractfile(member)
                if content is None:
                    raise _Refused(f"the member {member.name!r} cannot be read")
                yield member.name, member.size, content
        if kind == "gz":
            while file.read(1 << 16):  # to the end, where the checksum is
                pass


class _Bounded:
    """A file that does not read more at once, nor in all, than a sound tar would ask for (a header may lie)."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MAX_BYTES + MAX_FILES * 1024

    def read(self, size: int = -1) -> bytes:
        self.left -= max(size, 0)
        if not 0 <= size <= _MAX_READ or self.left < 0:
            raise _Refused("a header in it says an impossible size")
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()


def _measure(folder: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != _RECORD]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _record(folder: Path) -> Path:
    return folder / _RECORD


def _whole(folder: Path) -> bool:
    try:
        return bool(json.loads(_record(folder).read_text()) == _measure(folder))
    except (OSError, ValueError):
        return False


def _top(folder: Path) -> Path:
    while True:
        inside = [entry for entry in folder.iterdir() if entry.name != _RECORD]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


class _Refused(Exception):
    """What is wrong with a member."""
