"""The members of a zip or tar: plain files alone, read within bounds whatever a header says."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    "a tar file": lambda path: path.open("rb"), "a gzip file": gzip.open, "a bzip2 file": bz2.open, "an xz file": lzma.open,
}  # fmt: skip
"""What a tar is by its first bytes (`fdl.data.formats.signatures.content_name`), and how to read it unpacked."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_MAX_READ = 1 << 20  # the most that is asked of a tar at once, but for a header that lies about its size


class Member(NamedTuple):
    """A plain file in an archive: its name as written there, its declared size in bytes, and its content."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


class RefusedError(Exception):
    """What is wrong with a member, or with the whole archive."""


def zip_members(path: Path) -> Generator[Member, None, None]:
    """Yield the files in a zip.

    Raises:
        RefusedError: one is a link, a device, encrypted, or packed by a method that Python lacks; whatever zipfile raises.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _decode_name(info)
            if name.endswith(("/", "\\")):
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise RefusedError(f"the member {name!r} is a link or a device")
            if info.flag_bits & 1:
                raise RefusedError(f"the member {name!r} is encrypted")
            if info.compress_type not in _METHODS:
                method = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))  # type: ignore[attr-defined]
                raise RefusedError(
                    f"the member {name!r} is packed by the method {method}, which cannot be unpacked here"
                )
            yield Member(name, info.file_size, functools.partial(archive.open, info))


def _decode_name(info: zipfile.ZipInfo) -> str:
    """Decode a member's name: UTF-8 even where the archive does not say so, as macOS writes it."""
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


def tar_members(path: Path, kind: str, limit: int) -> Generator[Member, None, None]:
    """Yield the files in a tar, compressed or not.

    Args:
        kind: a key of COMPRESSIONS.
        limit: the most bytes to read of it, unpacked.

    Raises:
        RefusedError: one is a link, a device or sparse, or there is more than `limit`; whatever tarfile raises.
    """
    with COMPRESSIONS[kind](path) as file:
        bounded = cast(Any, _Bounded(file, limit))
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise RefusedError(f"the member {member.name!r} is a link, a device or sparse")
                yield Member(member.name, member.size, functools.partial(archive.extractfile, member))
        while file.read(1 << 16):  # to the end, where a checksum is
            pass


class _Bounded:
    """A file that does not read more at once, nor in all, than a sound tar would ask for (a header may lie)."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.left = file, limit

    def read(self, size: int = -1) -> bytes:
        self.left -= max(size, 0)
        if not 0 <= size <= _MAX_READ or self.left < 0:
            raise RefusedError("a header in it says an impossible size")
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()
