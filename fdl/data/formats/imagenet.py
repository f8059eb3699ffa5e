"""ImageNet (ILSVRC 2012): a folder of class folders, the set that TFDS prepared, or a stand-in; decoded batch by batch."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path

import numpy as np

from fdl.data.formats import tfds
from fdl.data.formats.encoded import Encoded
from fdl.data.formats.folders import Place, read_folder
from fdl.data.formats.forms import at_roots, choose, places, roots, splits
from fdl.data.formats.frames import Frame
from fdl.data.formats.tfds_sets import read_records
from fdl.data.splits import Request, Splits
from fdl.data.standins import emblems
from fdl.data.standins.standin import SEED
from fdl.types import Arrays, Count, UserError, printable

TFDS_NAME = "imagenet2012"
STANDIN_SIZES = {"train": 2560, "test": 512}
STANDIN_CLASSES = 1000
STANDIN_HEIGHT, STANDIN_WIDTH = 375, 500


def imagenet(request: Request, *, path: str = "imagenet", size: Count = 224) -> Splits:
    """Load ImageNet (Deng et al. 2009; Russakovsky et al. 2015): 1,281,167 + 50,000 photographs of 1,000 classes.

    Its test split's labels are not published; what is called test here is the publisher's validation split, which
    chooses nothing. Forms, in the order of "auto": imagenet2012 prepared by TFDS with file_format=array_record; a folder
    of JPEGs, PATH/train/CLASS/* and PATH/val/CLASS/*, read as `fdl.data.formats.folders.folder` reads it with crop=True; a
    stand-in. Nothing is downloaded: the licence wants a person's consent.

    Args:
        path: the folder, in --data_dir if it is there, else in the current folder; of any data set of that layout.
        size: height and width of the pictures, in pixels.

    Returns:
        Splits whose "inputs" are decoded batch by batch. The sha256 is over names, sizes in bytes and labels, not pixels.

    Raises:
        UserError: the form asked for is not there, or its folders do not agree.
    """
    frame = Frame((size, size), crop=True)
    own = request.find(path)
    folders = [root / path for root in roots(request)] + ([own] if own else [])
    files = [("files", functools.partial(_from_folder, request, folder, frame)) for folder in folders]
    if path == "imagenet":
        known = at_roots(request, lambda root: _from_tfds(request, root, frame), "tfds")
        return choose("imagenet", request, [*known, *files, ("builtin", functools.partial(_made, frame))])
    if not any(folder.is_dir() for folder in folders):
        where = f"neither in {places(request)} nor in {Path.cwd()}"
        raise UserError(f"no folder {printable(path)!r}, {where}: give its path in data.load.path")
    return choose("imagenet", request, [*files])


def _from_folder(request: Request, folder: Path, frame: Frame) -> Splits | None:
    if not folder.is_dir():
        return None
    held = read_folder(request, Place(folder, str(folder), folder.name), frame, test_share=0)
    if held.test is None:  # a share of training in its place would be another data set under ImageNet's name
        found = "; ".join(held.notes) or "nothing else"
        raise UserError(f"{folder} lacks train/ or val/, with a subfolder for each class in both ({found})")
    return held


def _from_tfds(request: Request, root: Path, frame: Frame) -> Splits | None:
    """Read the prepared set through TFDS' random access: one record at a time, their JPEGs left as they are."""
    folder = tfds.prepared(TFDS_NAME, root)
    if folder is None:
        return None
    held = read_records(request, TFDS_NAME, folder, frame, {"train": "train", "test": "validation"})
    return splits(
        "imagenet", "tfds", f"TFDS data in {folder}", held.train, held.test, facts=held.facts, skipped=held.skipped
    )


def _made(frame: Frame) -> Splits:
    """Make JPEGs of emblems; each is drawn when it is read, so that the stand-in costs nothing at the start."""

    def column(number: int, count: int) -> Arrays:
        targets = np.random.default_rng((SEED, number)).permutation(np.arange(count) % STANDIN_CLASSES)
        read = functools.partial(_draw, number, targets)
        digest = hashlib.sha256(f"imagenet-standin {SEED} {number} {count}".encode()).digest()
        inputs = Encoded(read, lambda row: f"{row} of the stand-in", digest, np.arange(count), frame)
        return {"inputs": inputs, "targets": targets.astype(np.int32)}

    train, test = (column(number, count) for number, count in enumerate(STANDIN_SIZES.values()))
    where = f"a stand-in, not photographs: JPEGs drawn by fdl.data.standins.emblems, seed {SEED}"
    classes = tuple(f"emblem {number:03d}" for number in range(STANDIN_CLASSES))
    return splits("imagenet-standin", "builtin", where, train, test, classes=classes, standin=True)


def _draw(number: int, targets: np.ndarray, row: int) -> bytes:
    """Draw one JPEG: the class's three digits are its form, its hue and the ground's hue."""
    from PIL import Image

    ground, hue, form = (np.array([int(digit)]) for digit in f"{targets[row]:03d}")
    rng = np.random.default_rng((SEED, number, row))
    small = emblems.draw(rng, form, hue / 10, ground / 10, STANDIN_HEIGHT // 3, STANDIN_WIDTH // 3)[0]
    file = io.BytesIO()
    picture = Image.fromarray(small).resize((STANDIN_WIDTH, STANDIN_HEIGHT), Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
