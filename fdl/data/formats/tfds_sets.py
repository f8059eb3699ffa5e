"""Any data set of pictures or numbers that TensorFlow Datasets has, under the features that it is trained on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from fdl.data.formats import tfds
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.checked import check_all
from fdl.data.formats.encoded import Encoded
from fdl.data.formats.forms import choose, tfds_forms
from fdl.data.formats.frames import Frame
from fdl.data.splits import Facts, Request, Splits
from fdl.environment import cache_dir
from fdl.files import replacing
from fdl.types import Arrays, Count, RunError, UserError, take

_GROUP = 10_000  # records whose check is kept together
_PARTS = {"train": "train", "test": "test", "validation": "validation"}


def tfds_dataset(
    request: Request, *, name: str, size: tuple[Count, Count] | None = None, crop: bool = False
) -> Splits:  # fmt: skip
    """Load a data set of TFDS by its name ("cifar100", "svhn_cropped", "kmnist"): prepared already, or downloaded by TFDS.

    Its splits train, test and validation are taken, each where there is one with labels.

    Args:
        name: as TFDS has it, with its configuration where there are several ("cifar10_corrupted/brightness_1").
        size: (H, W) to which pictures are scaled, batch by batch (as `fdl.data.formats.folders.folder` does); needed where they
            differ in size. The data set must have been prepared with file_format=array_record.
        crop: with `size`: a random part of the picture in training, its middle in evaluation.

    Raises:
        UserError: there is no such data set, it cannot be had, or it has no inputs and targets.
    """
    if crop and size is None:
        raise UserError("data.load.crop=true needs data.load.size, the height and width of what is cut out")

    def read(source: str, folder: Path) -> Splits:
        if size is None:
            return _read_whole(source, name, folder)
        return read_records(request, name, folder, Frame(size, crop=crop), _PARTS, source)

    return choose(name, request, tfds_forms(name, request, read))


def _read_whole(source: str, name: str, folder: Path) -> Splits:
    """Read all rows into memory, as TFDS decodes them."""
    inputs, targets = tfds.supervised_keys(folder)
    held, names = tfds.read(folder, tuple(_PARTS.values()))
    if "train" not in held:
        raise UserError(f"the TFDS data in {folder} has no split train, only {', '.join(held) or 'others'}")
    rows: dict[str, Arrays] = {}
    notes = []
    for split, columns in held.items():
        labels = columns[targets]
        labels = labels.astype(np.int32) if np.issubdtype(labels.dtype, np.integer) else labels
        if targets in names and len(labels) and labels.min() < 0:
            notes.append(f"the {split} split has no labels and is left out")
        else:
            rows[split] = {"inputs": columns[inputs], "targets": labels}
    facts = Facts(classes=names.get(targets, ()), target=targets)
    where = f"TFDS data in {folder}"
    return Splits(name, source, where, rows["train"], rows.get("test"), rows.get("validation"), facts, notes=notes)


def read_records(
    request: Request, name: str, folder: Path, frame: Frame, parts: Mapping[str, str], source: str = "tfds"
) -> Splits:
    """Read pictures that are decoded batch by batch, through TFDS' random access to its records.

    Args:
        parts: our name of a split ("train", "test", "validation") -> TFDS' name of it; those that are missing are left out.

    Raises:
        UserError: it was not prepared for random access; BadInputs where pictures cannot be read.
    """
    inputs, targets = tfds.supervised_keys(folder)
    sources, classes = tfds.record_sources(name, folder, inputs)
    rows: dict[str, Arrays] = {}
    bad: list[Bad] = []
    for split, theirs in parts.items():
        if theirs in sources:
            rows[split], wrong = _column(sources[theirs], folder, theirs, frame, (inputs, targets))
            bad += wrong
    if "train" not in rows:
        raise UserError(f"the TFDS data in {folder} has no split {parts['train']}, only {', '.join(sources)}")
    skipped = settle(bad, sum(len(held["targets"]) for held in rows.values()) + len(bad), "images", request.on_bad)
    facts = Facts(classes=classes.get(targets, ()), target=targets)
    where = f"TFDS data in {folder}"
    return Splits(name, source, where, rows["train"], rows.get("test"), rows.get("validation"), facts, skipped=skipped)


def _column(source: Any, folder: Path, split: str, frame: Frame, keys: tuple[str, str]) -> tuple[Arrays, list[Bad]]:
    content = hashlib.sha256(f"{split} {frame.size[0]}".encode() + (folder / "dataset_info.json").read_bytes()).digest()

    def read(row: int) -> bytes:
        return source[row][keys[0]]

    def title(row: int) -> str:
        return f"{split} {row} of {folder}"

    targets = _labels(source, keys[1], content)
    places = [row // _GROUP for row in range(len(source))]
    wrong, digests = check_all(read, places, [f"{content.hex()} {row}" for row in range(len(source))], title(0))
    good = np.ones(len(source), bool)
    good[list(wrong)] = False
    inputs = Encoded(read, title, content, np.arange(len(source)), frame, digests=digests)
    rows = {"inputs": inputs, "targets": targets}
    return (take(rows, good) if wrong else rows), [Bad(title(row), "", reason) for row, reason in wrong.items()]


def _labels(source: Any, key: str, content: bytes) -> np.ndarray:
    """Return int32 [N]. A label lies beside its picture, so all records are read once; labels are kept for the next start."""
    path = cache_dir() / f"tfds-labels-{content.hex()[:16]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return np.load(path)
    targets = np.asarray([record[key] for record in source], np.int32)
    try:
        with replacing(path, durable=False) as new:
            np.save(new, targets)
    except (UserError, RunError) as error:
        logging.warning("the labels will be read again at the next start: %s", error)
    return targets
