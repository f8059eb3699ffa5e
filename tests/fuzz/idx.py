"""MNIST-like folders: each file damaged (`files`), or each place taken by something else (`folders`)."""

from __future__ import annotations

import functools
import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data import sources
from fdl.data.splits import Request
from fuzz.campaign import Case
from fuzz.mutations import NUMBERS, mutate

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
COUNTS = (12, 12, 4, 4)


@functools.cache
def whole() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    made = []
    for name, count in zip(FILES, COUNTS, strict=True):
        shape = (count, 5, 4) if "images" in name else (count,)
        values = rng.integers(0, 256, shape, np.uint8) if "images" in name else (np.arange(count) % 10).astype(np.uint8)
        made.append(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes())
    return tuple(made)


def _write(folder: Path, zipped: bool) -> list[Path]:
    place = folder / "fashion-mnist"
    place.mkdir()
    paths = [place / (name + (".gz" if zipped else "")) for name in FILES]
    for path, data in zip(paths, whole(), strict=True):
        path.write_bytes(gzip.compress(data, mtime=0) if zipped else data)
    return paths


def _load(folder: Path) -> Any:
    return sources.fashion_mnist(Request(source="files", data_dir=folder, offline=True))


@functools.cache
def _sound() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), True)
        return str(_load(Path(folder)).sha256)


def files(rng: np.random.Generator, folder: Path) -> Case:
    zipped = bool(rng.random() < 0.6)
    paths = _write(folder, zipped)
    number, kind = int(rng.integers(4)), rng.random()
    path, data, valid = paths[number], whole()[number], None
    if kind < 0.1:
        valid = True
    elif kind < 0.5:
        path.write_bytes(mutate(rng, path.read_bytes(), 1))
    elif kind < 0.6:
        start = (b"<html>", b"", b"\x1f\x8b", b"PK\3\4", b"\0\0\x0b\1", bytes(8))[rng.integers(6)]
        path.write_bytes(start)
        valid = False
    else:  # a header that lies, in a gzip whose checksum is right
        spoiled = bytearray(data)
        value = NUMBERS[rng.integers(len(NUMBERS))] % 2**32
        at = 4 * int(rng.integers(0, 4 if "images" in path.name else 2))
        spoiled[at : at + 4] = value.to_bytes(4, "big")
        path.write_bytes(gzip.compress(bytes(spoiled), mtime=0) if zipped else bytes(spoiled))
        valid = bytes(spoiled) == data

    def check(result: Any) -> None:
        if not isinstance(result, Exception) and zipped:
            assert result.sha256 == _sound(), "damage went unnoticed"

    return Case(lambda: _load(folder), (path.name, "fashion-mnist"), valid, check)


def folders(rng: np.random.Generator, folder: Path) -> Case:
    path = _write(folder, bool(rng.random() < 0.5))[rng.integers(4)]
    kind, valid = rng.integers(9), False
    if kind == 7:
        path.rename(folder / "moved")
        path.symlink_to(folder / "moved")
        valid = True
    elif kind == 8:
        (path.parent / "notes.txt").write_text("harmless")
        valid = True
    else:
        path.unlink()
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        path.symlink_to("/dev/zero")
    elif kind == 5:
        path.write_bytes(b"")
    elif kind == 6:
        other = [p for p in path.parent.iterdir() if p != path]
        path.write_bytes(other[rng.integers(3)].read_bytes())

    return Case(lambda: _load(folder), ("fashion-mnist",), valid)
