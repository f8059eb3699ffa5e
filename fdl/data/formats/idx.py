"""The IDX files of MNIST and its relatives (LeCun, Cortes and Burges), read to the last byte and checked before use.

Format: two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each dimension as a big-endian
uint32, then the values. https://web.archive.org/web/2020/http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from fdl.data.formats.download import MEND, damaged
from fdl.data.formats.signatures import LENGTH, content_name
from fdl.types import Arrays, UserError

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MAX_BYTES = 1 << 30
"""Twice the largest relative of MNIST (EMNIST's 698,000 images)."""


def find(folder: Path) -> dict[str, tuple[Path, Path]] | None:
    """Find the paths {split: (images, labels)}, each .gz or not; None where the folder has none of the four.

    Raises:
        UserError: some of the four are missing.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for names in _FILES.values():
        for name in names:
            paths = [path for path in (folder / f"{name}.gz", folder / name) if path.is_file()]
            found |= {name: paths[0]} if paths else {}
            missing += [] if paths else [f"{name}.gz"]
    if not found:
        return None
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)} of the four official files: put it there beside the others"
        )
    return {split: (found[images], found[labels]) for split, (images, labels) in _FILES.items()}


def load(paths: dict[str, tuple[Path, Path]], num_classes: int) -> dict[str, Arrays]:
    """Load {split: {"inputs": uint8 [N, H, W, 1], "targets": int32 [N]}}.

    Raises:
        UserError: a file is damaged, or the files do not belong together.
    """
    splits = {}
    for split, (images_path, labels_path) in paths.items():
        images, labels = read(images_path, ndim=3), read(labels_path, ndim=1)
        if len(images) != len(labels):
            raise UserError(
                f"{images_path} holds {len(images)} images but {labels_path.name} {len(labels)} labels: they do not "
                f"belong together; {MEND}"
            )
        if labels.max() >= num_classes:
            raise UserError(f"{labels_path} holds label {labels.max()}, expected 0 to {num_classes - 1}: {MEND}")
        splits[split] = {"inputs": images[..., None], "targets": labels.astype(np.int32)}
    sizes = {split: arrays["inputs"].shape[1:3] for split, arrays in splits.items()}
    if len(set(sizes.values())) != 1:
        raise UserError(f"{paths['train'][0].parent}: images differ in size between the files, {sizes}: {MEND}")
    return splits


def read(path: Path, ndim: int) -> np.ndarray:
    """Read one file of unsigned bytes, uint8 with `ndim` dimensions.

    Raises:
        UserError: not IDX, another number of dimensions, cut short, too long, or a gzip whose checksum is wrong.
    """
    try:
        with path.open("rb") as file:
            start = file.read(LENGTH)
        known = content_name(start)
        zipped = known == "a gzip file"
        if not zipped and (known or path.suffix == ".gz"):
            found = known or f"no gzip file (it starts with {start[:4].hex(' ')})"
            raise UserError(f"{path} is {found} ({path.stat().st_size:,} bytes), not an IDX file: {MEND}")
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape = _read_header(file.read(4 + 4 * ndim), ndim, path)
            expected = math.prod(shape)
            # One byte more than promised: it shows a file that is too long, and makes gzip check its CRC at the end.
            data = _read_at_most(file, expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    if len(data) != expected:
        held = f"{len(data):,} bytes" if len(data) < expected else "more"
        raise UserError(f"{path}: the header promises {expected:,} bytes of data, the file holds {held}: {MEND}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_at_most(file: IO[bytes] | gzip.GzipFile, size: int) -> bytearray:
    """Read up to `size` bytes, in steps: a single `read` would allocate all that a header promises, however short the file."""
    data = bytearray()
    while len(data) < size and (chunk := file.read(min(1 << 20, size - len(data)))):
        data += chunk
    return data


def _read_header(header: bytes, ndim: int, path: Path) -> tuple[int, ...]:
    magic = bytes([0, 0, 8, ndim])
    if header[:4] != magic:
        raise UserError(f"{path}: magic number {header[:4].hex(' ') or 'missing'}, expected {magic.hex(' ')}: {MEND}")
    if len(header) < 4 + 4 * ndim:
        raise UserError(f"{path}: cut off within its header of {4 + 4 * ndim} bytes: {MEND}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    if not math.prod(shape) or math.prod(shape) > MAX_BYTES:
        raise UserError(f"{path}: dimensions {shape} in its header cannot be right: {MEND}")
    return shape
