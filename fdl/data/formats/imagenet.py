"""ImageNet (ILSVRC 2012), and any folder like it: labels in memory, pictures as `fdl.data.columns.Encoded` columns."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.columns import Encoded
from fdl.data.formats import tfds
from fdl.data.formats.forms import choose, places, roots, splits
from fdl.data.formats.images import SUFFIXES
from fdl.data.splits import Request, Splits
from fdl.data.standins import emblems
from fdl.data.standins.standin import SEED
from fdl.environment import cache_dir
from fdl.types import Arrays, Count, UserError

TFDS_NAME = "imagenet2012"
STANDIN_SIZES = {"train": 2560, "test": 512}
STANDIN_CLASSES = 1000
STANDIN_HEIGHT, STANDIN_WIDTH = 375, 500


def imagenet(request: Request, *, path: str = "imagenet", size: Count = 224) -> Splits:
    """ImageNet (Deng et al. 2009; Russakovsky et al. 2015): 1,281,167 + 50,000 photographs of 1,000 classes.

    Its test split's labels are not published; what is called test here is the publisher's validation split, which
    chooses nothing. Forms, in the order of "auto": imagenet2012 prepared by TFDS with file_format=array_record; a folder
    of JPEGs, PATH/train/CLASS/* and PATH/val/CLASS/* (or PATH/test); a stand-in. Nothing is downloaded: the licence
    wants a person's consent.

    Args:
        path: the folder, in --data_dir if it is there, else in the current folder; of any data set of that layout.
        size: height and width of the pictures, in pixels.

    Returns:
        Splits whose "inputs" are decoded batch by batch. The sha256 is over names, sizes in bytes and labels, not pixels.

    Raises:
        UserError: the form asked for is not there, or its folders do not agree.
    """
    forms: list[Any] = []
    for root in roots(request):
        forms += [("tfds", functools.partial(_from_tfds, root, size))]
        forms += [("files", functools.partial(_from_folder, root / path, size))]
    forms += [("files", functools.partial(_from_folder, Path(path), size))]
    if path == "imagenet":
        forms += [("builtin", functools.partial(_made, size))]
    elif not any((root / path).is_dir() for root in (*roots(request), Path())):
        raise UserError(f"no folder {path!r}, neither in {places(request)} nor in {Path.cwd()}: give its path")
    else:
        forms = [form for form in forms if form[0] == "files"]
    return choose("imagenet", request, forms)


def _from_folder(folder: Path, size: int) -> Splits | None:
    tests = [folder / name for name in ("val", "validation", "test") if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        if folder.is_dir():
            raise UserError(
                f"{folder} lacks train/ or val/: expected a folder of each, with a subfolder for each class"
            )
        return None
    files = {split: _files(part) for split, part in (("train", folder / "train"), ("test", tests[0]))}
    classes = tuple(files["train"])
    if len(classes) < 2 or not files["test"] or not set(files["test"]) <= set(classes):
        wrong = sorted(set(files["test"]) - set(classes))[:5] or "no images of theirs"
        raise UserError(
            f"{folder / 'train'} holds images of {len(classes)} classes, {tests[0]} {wrong}: make the two agree, "
            "a subfolder for each of 2 classes or more"
        )
    train, test = (_column(part, files[split], classes, size) for split, part in
                   (("train", folder / "train"), ("test", tests[0])))  # fmt: skip
    return splits(folder.name, "files", str(folder), train, test, classes=classes)


def _files(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """{class: [(file name, bytes), ...]}, both in order of name; a million files are listed in some seconds."""
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("."):
            with os.scandir(entry) as listed:
                files = [(file.name, file.stat().st_size) for file in listed
                         if file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")]  # fmt: skip
            if files:
                found[entry.name] = sorted(files)
    return found


def _column(folder: Path, files: dict[str, list[tuple[str, int]]], classes: tuple[str, ...], size: int) -> Arrays:
    names = [os.path.join(label, name) for label, held in files.items() for name, _ in held]
    digest = hashlib.sha256(repr(files).encode(errors="surrogateescape")).digest()
    targets = np.repeat([classes.index(label) for label in files], [len(held) for held in files.values()])

    def read(row: int) -> bytes:
        with open(folder / names[row], "rb") as file:
            return file.read()

    inputs = Encoded(read, lambda row: str(folder / names[row]), digest, np.arange(len(names)), size)
    return {"inputs": inputs, "targets": targets.astype(np.int32)}


def _from_tfds(root: Path, size: int) -> Splits | None:
    """The prepared set through TFDS' random access: records are read one by one, their JPEGs left as they are."""
    folder = tfds.prepared(TFDS_NAME, root)
    if folder is None:
        return None
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
        sources = {split: builder.as_data_source(split, decoders=decoders) for split in ("train", "validation")}
    except NotImplementedError as error:
        raise UserError(
            f"the TFDS data in {folder} cannot be read row by row: prepare it again with "
            f"`tfds build {TFDS_NAME} --file_format=array_record`, or set data.source=files"
        ) from error
    train, test = (_records(source, folder, split, size) for split, source in sources.items())
    classes = tuple(builder.info.features["label"].names)
    return splits("imagenet", "tfds", f"TFDS data in {folder}", train, test, classes=classes)


def _records(source: Any, folder: Path, split: str, size: int) -> Arrays:
    content = hashlib.sha256(f"{split} {size}".encode() + (folder / "dataset_info.json").read_bytes()).digest()
    # A label lies beside its JPEG, so the first start reads all records once; the labels are kept for the next.
    kept = cache_dir() / f"{TFDS_NAME}-labels-{content.hex()[:16]}.npy"
    try:
        targets = np.load(kept)
    except (OSError, ValueError, EOFError):
        targets = np.asarray([record["label"] for record in source], np.int32)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{os.getpid()}-{kept.name}")
        np.save(partial, targets)
        partial.replace(kept)

    def read(row: int) -> bytes:
        return source[row]["image"]

    inputs = Encoded(read, lambda row: f"{split} {row} of {folder}", content, np.arange(len(source)), size)
    return {"inputs": inputs, "targets": targets}


def _made(size: int) -> Splits:
    """JPEGs of emblems; each is drawn when it is read, so that the stand-in costs nothing at the start."""

    def column(number: int, count: int) -> Arrays:
        targets = np.random.default_rng((SEED, number)).permutation(np.arange(count) % STANDIN_CLASSES)
        read = functools.partial(_draw, number, targets)
        digest = hashlib.sha256(f"imagenet-standin {SEED} {number} {count}".encode()).digest()
        inputs = Encoded(read, lambda row: f"{row} of the stand-in", digest, np.arange(count), size)
        return {"inputs": inputs, "targets": targets.astype(np.int32)}

    train, test = (column(number, count) for number, count in enumerate(STANDIN_SIZES.values()))
    where = f"a stand-in, not photographs: JPEGs drawn by fdl.data.standins.emblems, seed {SEED}"
    classes = tuple(f"emblem {number:03d}" for number in range(STANDIN_CLASSES))
    return splits("imagenet-standin", "builtin", where, train, test, classes=classes, standin=True)


def _draw(number: int, targets: np.ndarray, row: int) -> bytes:
    """One JPEG: the class's three digits are its form, its hue and the ground's hue."""
    from PIL import Image

    ground, hue, form = (np.array([int(digit)]) for digit in f"{targets[row]:03d}")
    rng = np.random.default_rng((SEED, number, row))
    small = emblems.draw(rng, form, hue / 10, ground / 10, STANDIN_HEIGHT // 3, STANDIN_WIDTH // 3)[0]
    file = io.BytesIO()
    picture = Image.fromarray(small).resize((STANDIN_WIDTH, STANDIN_HEIGHT), Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
