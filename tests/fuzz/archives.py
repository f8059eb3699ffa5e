"""Archives of class folders: whole, with members that lead out, links, devices and bombs, or damaged."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data import sources
from fdl.data.formats import archives
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.splits import Request
from fuzz.campaign import Case, cache_in
from fuzz.images import corpus
from fuzz.mutations import NUMBERS, mutate

EVIL_NAMES = (
    "../evil.png", "../../canary", "a/../../evil.png", "/evil.png", "//evil.png", "cat/../../../evil.png", "C:/evil.png",
    "C:\\evil.png", "\\\\host\\evil.png", "..\\..\\canary", "cat\\..\\..\\evil.png",
    "..", "/", "cat/" + "x" * 300 + ".png", "/".join("d" * 40) + "/x.png", "cat/0.png",
)  # fmt: skip
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1), "bz2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}  # fmt: skip
HARMLESS = (
    "cat/notes.txt", "cat/x.py", "__MACOSX/cat/._0.png", "cat/.hidden.png", "cat/réal.png", "cat/-rf.png", "cat/$(id).png",
    "cat/a\nb.png", "cat\\x.png", "cat/x[1].png", "cat/{a}*?.png", "dog\\wild[2]\\x.png",
)  # fmt: skip


def files() -> dict[str, bytes]:
    return {f"{name}/{number}.png": corpus()["png"][0] for name in ("cat", "dog") for number in range(3)}


def make_zip(held: dict[str, bytes], links: dict[str, tuple[int, str]], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive:
        for name, data in held.items():
            archive.writestr(zipfile.ZipInfo(name), data, packed)
        for name, (kind, leads_to) in links.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, leads_to)
    return file.getvalue()


def make_tar(held: dict[str, bytes], links: dict[str, tuple[bytes, str]], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in held.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, (kind, leads_to) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, leads_to
            archive.addfile(info)
    return file.getvalue()


def without_utf8_flag(made: bytes) -> bytes:
    """The same zip, its names no longer said to be UTF-8, as macOS and old tools write them."""
    data = bytearray(made)
    for signature, at in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        place = data.find(signature)
        while place >= 0:
            data[place + at] &= ~0x08
            place = data.find(signature, place + 4)
    return bytes(data)


def lying_tar(rng: np.random.Generator) -> bytes:
    """A header whose numbers are at the edge, its checksum right again."""
    data = bytearray(make_tar(files(), {}, (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[rng.integers(2)]))
    header = data[:512]
    kind = rng.integers(3)
    if kind < 2:
        value = NUMBERS[rng.integers(len(NUMBERS))]
        base256 = (
            b"\x80" + value.to_bytes(11, "big")
            if rng.random() < 0.5
            else b"\xff" * 4 + struct.pack(">q", -int(value % 2**40))
        )
        header[124:136] = base256 if rng.random() < 0.7 else f"{value % 8**11:011o}\0".encode()
    if kind > 0:
        header[156:157] = bytes([rng.choice(list(b"01234567xgLKSDVMN\0"))])
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header + data[512:])


def _make(rng: np.random.Generator, suffix: str) -> tuple[bytes, bool | None]:
    kind, held = rng.random(), files()
    tar = suffix != ".zip"
    if kind < 0.2:
        around = ("", "pets/", "pets[1]/", "ätna/")[rng.integers(4)]
        held = {around + name: data for name, data in held.items()}
        if rng.random() < 0.3:  # as Windows' own tools write them
            held = {name.replace("/", "\\"): data for name, data in held.items()}
        if tar:
            return make_tar(held, {}, int(rng.integers(3))), True
        made = make_zip(held, {}, int(rng.choice([0, 8, 12, 14])))
        return (without_utf8_flag(made) if rng.random() < 0.3 else made), True
    if kind < 0.27:
        more = dict.fromkeys(HARMLESS[:4], b"not looked at") | {name: corpus()["png"][0] for name in HARMLESS[4:]}
        return (make_tar if tar else make_zip)(held | more, {}), True
    if kind < 0.4:
        name = EVIL_NAMES[rng.integers(len(EVIL_NAMES))]
        if tar:
            return make_tar(held, {})[: -1024 * 10] + make_tar({name: corpus()["png"][0]}, {}), None
        with_evil = make_zip(held | {"Q" * len(name.encode()): corpus()["png"][0]}, {})
        return with_evil.replace(b"Q" * len(name.encode()), name.encode()), None
    if kind < 0.52:
        where = ("../canary", "/etc/passwd", "0.png", "cat/0.png", "..", "/dev/zero", "x.png", "\0")[rng.integers(8)]
        if tar:
            types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
            return make_tar(held, {"cat/x.png": (types[rng.integers(5)], where.strip("\0"))}), False
        types = (0o120000, 0o020000, 0o060000, 0o010000, 0o140000)
        return make_zip(held, {"cat/x.png": (types[rng.integers(5)], where)}), False
    if kind < 0.54:
        bomb = {"cat/bomb.png": bytes(20 << 20)}
        return (make_tar(held | bomb, {}) if tar else make_zip(held | bomb, {})), None if suffix == ".tar" else False
    if kind < 0.58:
        return (b"", b"<!DOCTYPE html>", b"PK", b"\x1f\x8b\x08", bytes(1024), b"Rar!\x1a\7", b"\xfd7zXZ\0")[
            rng.integers(7)
        ], False
    if kind < 0.7 and tar:
        return lying_tar(rng), None
    return mutate(rng, make_tar(held, {}) if tar else make_zip(held, {})), None


def target(rng: np.random.Generator, folder: Path) -> Case:
    suffix = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".txz")[rng.integers(6)]
    data, valid = _make(rng, suffix)
    pack = next((pack for end, pack in PACKERS.items() if suffix.endswith(end)), None)
    if pack and data[:2] != b"\x1f\x8b":
        if (valid is not None and len(data) > 100) or rng.random() < 0.5:
            data = pack(data)
        else:
            data, valid = mutate(rng, pack(data)), None if valid is not False else False
    path = folder / f"pets{suffix}"
    path.write_bytes(data)
    request = Request(data_dir=folder, on_bad=("stop", "skip")[rng.integers(2)])

    def load() -> Any:
        with cache_in(folder / "cache"), limited(16 << 20):
            return sources.folder(request, path=path.name, size=(8, 8))

    return Case(load, (path.name, "cache/fdl/archives"), valid, functools.partial(_check, folder, valid))


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """With a smaller limit for bombs: those of a gigabyte would take a minute each."""
    before, archives.FREE_BYTES = archives.FREE_BYTES, size
    try:
        yield
    finally:
        archives.FREE_BYTES = before


def _check(folder: Path, valid: bool | None, result: Any) -> None:
    unpacked = [path for path in (folder / "cache").rglob("*") if not path.name.endswith((".lock", ".unpacked.json"))]
    for path in unpacked:
        assert not path.is_symlink(), f"{path} is a link"
        assert path.is_dir() or path.suffix.lower() in (".png",), f"{path} was written"
        assert not path.name.endswith(".tmp")
        assert not os.path.basename(path).startswith("."), f"{path} was left"
    assert sorted(path.name for path in folder.iterdir() if path.name != "cache") == [
        p.name for p in folder.glob("pets.*")
    ]
    if isinstance(result, Exception) and not isinstance(result, BadInputs) and "expected 2 or more" not in str(result):
        assert not [path for path in unpacked if path.is_file()], f"something was left after {result}"
