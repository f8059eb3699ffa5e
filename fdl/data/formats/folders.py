"""A user's own images: a folder with a subfolder for each class, a folder beside a table of labels, or an archive of either."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from absl import logging

from fdl.data.digests import first_equal
from fdl.data.formats import archives
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.class_folders import Labelled, SplitName, label_by_folder
from fdl.data.formats.forms import choose, stratified
from fdl.data.formats.frames import Frame
from fdl.data.formats.labels import label_by_table
from fdl.data.formats.listing import Listing, list_pictures
from fdl.data.formats.picture_rows import is_lazy, picture_rows
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, count_examples, printable, take

TEST_SHARE = 0.2  # of every class, where there is no test split


def folder(
    request: Request, *, path: str, size: tuple[Count, Count] = (28, 28), channels: Literal[1, 3] = 3, labels: str = "",
    label_column: str = "", crop: bool = False, lazy: bool | None = None,
) -> Splits:  # fmt: skip
    """Read your own images: PATH/CLASS/*, or PATH/train/CLASS/* with test/ and val/ beside it, or any with a table of labels.

    Folders inside a class's folder belong to the class. A split's folder may have any of the usual names (training, valid,
    dev, test_set, ...). Where there is no test/, val/ is the test split, for it chooses nothing then; where there is neither, a
    fifth of each class is (equal pictures stay together). What is left out is said in `Splits.notes`.

    Args:
        path: a folder; a .zip or .tar (.gz, .bz2, .xz) of one, unpacked once into fdl's cache (`fdl.data.formats.archives`); or a
            table of labels with its folder around it. Relative to --data_dir if it is there, else to the current folder.
        size: (H, W) to which every image is scaled.
        channels: 1 for grey, 3 for RGB.
        labels: a CSV file with a column of file names and one of labels; its path, from PATH or as `path`.
        label_column: the name of the label's column, where the file has several.
        crop: False: the whole image on a ground (`fdl.data.formats.frames.fit`). True: a random part of it in training, its
            middle in evaluation.
        lazy: decode images batch by batch instead of once at the start. None: where they take over 1 GiB, and for `crop`.

    Raises:
        UserError: there is no such folder, or not two classes in it; BadInputs where images cannot be read.
    """
    place = _find(request, path, labels)
    frame = Frame(size, channels, crop)
    return choose(place.name, request, [("files", lambda: read_folder(request, place, frame, lazy, label_column))])


def folder_classes(request: Request, path: str, labels: str = "", label_column: str = "") -> tuple[str, ...] | None:
    """Return a folder's class names without opening a picture; None where it must be unpacked, or cannot be read."""
    found = request.find(path)
    if found is None or not (found.is_dir() or _is_table(found)):
        return None
    place = _find(request, path, labels)
    return tuple(map(printable, _classes(_label(list_pictures(place.root), place, label_column), place.where)))


class Place(NamedTuple):
    """Where a user's pictures lie.

    Attributes:
        root: the folder.
        where: the same for a person; an archive's name where it was unpacked.
        name: what to call the data set.
        table: a file of labels.
        notes: what was left out already.
    """

    root: Path
    where: str
    name: str
    table: Path | None = None
    notes: tuple[str, ...] = ()


def _find(request: Request, path: str, labels: str) -> Place:
    given = request.find(path)
    if given is None:
        places = " nor in ".join(str(place) for place in (request.data_dir, Path.cwd()) if place is not None)
        raise UserError(f"no folder {printable(path)!r}, neither in {places}: give its path in data.load.path")
    table = given if _is_table(given) else None
    given = given.parent if _is_table(given) else given
    root, left_out = (given, "") if given.is_dir() else archives.unpack(given)
    if labels:
        table = root / labels if (root / labels).is_file() else request.find(labels) or root / labels
    if given.is_dir():
        return Place(root, str(given), printable(given.name), table)
    notes = (f"what is no picture is not unpacked: {left_out}",) if left_out else ()
    return Place(root, f"{given}, unpacked in {root}", printable(given.name.split(".")[0]), table, notes)


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv") and path.is_file()


def _label(listing: Listing, place: Place, label_column: str) -> Labelled:
    return label_by_folder(listing) if place.table is None else label_by_table(listing, place.table, label_column)


def read_folder(
    request: Request, place: Place, frame: Frame, lazy: bool | None = None, label_column: str = "",
    test_share: float = TEST_SHARE,
) -> Splits:  # fmt: skip
    """Read a folder that exists, as `folder` does.

    Args:
        test_share: how much of every class is cut from training where there is no other test split; 0 for nothing.

    Raises:
        UserError: as `folder`.
    """
    listing = list_pictures(place.root)
    labelled = _label(listing, place, label_column)
    classes = _classes(labelled, place.where)
    numbers = {label: number for number, label in enumerate(classes)}
    lazily = is_lazy(sum(map(len, labelled.splits.values())), frame, lazy)
    rows: dict[SplitName, Arrays] = {}
    bad: list[Bad] = [*listing.bad, *labelled.bad]
    for split, held in labelled.splits.items():
        targets = np.fromiter((numbers[label] for _, label in held), np.int32, len(held))
        rows[split], wrong = picture_rows(place.root, [picture for picture, _ in held], targets, frame, lazily)
        bad += wrong
    total = sum(map(count_examples, rows.values())) + len(bad)
    skipped = settle(sorted(bad), total, "images", request.on_bad)
    named = tuple(map(printable, classes))
    _check_counts(rows, named, place.where)
    said = [*place.notes, *labelled.notes]
    if "validation" in rows and "test" not in rows:
        said.append("there is no test folder: the validation folder is the test split, and chooses nothing")
        rows["test"] = rows.pop("validation")
    elif "test" not in rows and test_share:
        chosen = _held_out(rows["train"], test_share)
        rows["train"], rows["test"] = take(rows["train"], ~chosen), take(rows["train"], chosen)
    if said:
        logging.warning("%s: %s", place.where, "; ".join(said))
    parts = (rows["train"], rows.get("test"), rows.get("validation"))
    return Splits(place.name, "files", place.where, *parts, Facts(classes=named), skipped=skipped, notes=said)


def _held_out(rows: Arrays, share: float) -> np.ndarray:
    """Choose a share of every class for the test split, bool [N]; equal pictures stay together.

    A class of nothing but equal pictures is divided all the same: it has to be in both.
    """
    first = first_equal(rows, np.arange(count_examples(rows)))
    alone = np.flatnonzero(first == np.arange(len(first)))
    chosen = np.zeros(len(first), bool)
    chosen[alone] = stratified(rows["targets"][alone], share)
    chosen = chosen[first]
    by_row = stratified(rows["targets"], share)
    for label in np.unique(rows["targets"]):
        of = rows["targets"] == label
        if chosen[of].all():
            chosen[of] = by_row[of]
    return chosen


def _classes(labelled: Labelled, where: str) -> tuple[str, ...]:
    """Return the training split's classes in the order of their names, or of their values where all are whole numbers.

    Raises:
        UserError: there are not two, or another split holds others.
    """
    held = {split: {label for _, label in pictures} for split, pictures in labelled.splits.items()}
    classes = sorted(held.get("train", ()))
    if labelled.numbered and all(label.isdecimal() for label in classes):
        classes.sort(key=int)
    if len(classes) < 2:
        raise UserError(
            f"{where} holds images of {len(classes)} classes, expected 2 or more: make a subfolder for each class, or name a "
            f"table of file names and labels with data.load.labels{_said(labelled.notes)}"
        )
    for split, found in held.items():
        if wrong := sorted(map(printable, found - set(classes))):
            shown = f"{wrong[:5]}{' and more' if len(wrong) > 5 else ''}"
            raise UserError(
                f"{where}: the {split} split holds {shown}, of which there is no training image: make them agree"
            )
    return tuple(classes)


def _said(notes: list[str]) -> str:
    return f" ({'; '.join(notes[:3])})" if notes else ""


def _check_counts(rows: dict[SplitName, Arrays], classes: tuple[str, ...], where: str) -> None:
    counts = np.bincount(rows["train"]["targets"], minlength=len(classes))
    least = 1 if len(rows) > 1 else 2
    for name, count in zip(classes, counts, strict=True):
        if count < least:
            raise UserError(f"{where}: class {name} has {count} good images, expected {least} or more: add some")
    for split, held in rows.items():
        if not count_examples(held):
            raise UserError(f"{where}: the {split} split holds no good image: add some")
