"""CIFAR-10's binary files (Krizhevsky 2009), read to the last byte and checked before use.

Format: records of a label byte and 3,072 pixels, red plane, green plane, blue plane, each 32 rows of 32.
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np

from fdl.data.formats.download import MEND, damaged
from fdl.data.formats.signatures import LENGTH, content_name
from fdl.data.standins import emblems
from fdl.data.standins.standin import SEED, cached
from fdl.types import Arrays, UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_NAMES = [name for names in _FILES.values() for name in names]
_FOLDERS = ("cifar10/cifar-10-batches-bin", "cifar10", "cifar-10-batches-bin")
_ARCHIVES = ("cifar10/cifar-10-binary.tar.gz", "cifar-10-binary.tar.gz")


def load(root: Path) -> tuple[str, dict[str, Arrays]] | None:
    """Return (where they were, {split: {"inputs": uint8 [N, 32, 32, 3], "targets": int32 [N]}}), None where there is none.

    The six files are looked for in the folders that unpacking the official archive makes, then in the archive. Any whole
    number of records is taken; what differs from 50,000 + 10,000 is said in the first value.

    Raises:
        UserError: one of the six is missing or damaged.
    """
    for folder in (root / name for name in _FOLDERS):
        files = {name: folder / name for name in _NAMES if (folder / name).is_file()}
        if files:
            return _arrays(folder, {name: _bytes(path) for name, path in files.items()})
    archive = next((root / name for name in _ARCHIVES if (root / name).is_file()), None)
    return _arrays(archive, _unpacked(archive)) if archive else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {MEND}") from error


def _unpacked(archive: Path) -> dict[str, bytes]:
    """Read the six files' bytes into memory alone: nothing is written."""
    held = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                file = tar.extractfile(member) if name in _NAMES else None
                if file:
                    # A small archive can unfold into gigabytes; one record more than the official size shows in the check.
                    held[name] = file.read(10_000 * RECORD + 1)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise damaged(archive, error) from error
    return held


def _arrays(where: Path, files: dict[str, bytes]) -> tuple[str, dict[str, Arrays]]:
    missing = [name for name in _NAMES if name not in files]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)} of the six official files: put it there beside the others")
    splits = {}
    for split, names in _FILES.items():
        parts = [_records(where / name, files[name]) for name in names]
        records = np.concatenate(parts)
        planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
        inputs = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        splits[split] = {"inputs": inputs, "targets": records[:, 0].astype(np.int32)}
    counts = [len(arrays["targets"]) for arrays in splits.values()]
    part = "" if counts == [50_000, 10_000] else f", a part of the set: {counts[0]:,} + {counts[1]:,} images"
    return f"binary files in {where}{part}", splits


def _records(path: Path, data: bytes) -> np.ndarray:
    """Return uint8 [N, RECORD] of one file's bytes."""
    if not data or len(data) % RECORD:
        found = content_name(data[:LENGTH]) or "damaged"
        raise UserError(
            f"{path} is {found}: {len(data):,} bytes are not a whole number of records of {RECORD:,} bytes: {MEND}"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise UserError(f"{path} holds label {records[:, 0].max()}, expected 0 to {len(CLASSES) - 1}: {MEND}")
    return records


def drawn(num_train: int = 50_000, num_test: int = 10_000) -> tuple[Arrays, Arrays]:
    """Draw the stand-in, (train, test): ten kinds of emblems of any colour, kept in fdl's cache."""

    def make() -> Arrays:
        arrays: Arrays = {}
        for number, (split, count) in enumerate((("train", num_train), ("test", num_test))):
            rng = np.random.default_rng((SEED, number))
            targets = rng.permutation(np.arange(count) % 10).astype(np.int32)
            inputs = [
                emblems.draw(rng, some, rng.random(len(some)), rng.random(len(some)), SIDE, SIDE)
                for some in np.array_split(targets, max(1, count // 1000))
            ]
            arrays |= {f"{split}_inputs": np.concatenate(inputs), f"{split}_targets": targets}
        return arrays

    arrays = cached("cifar10", [emblems.__file__, __file__], (num_train, num_test), make)
    train, test = ({key: arrays[f"{split}_{key}"] for key in ("inputs", "targets")} for split in ("train", "test"))
    return train, test
