"""A Kaggle submission for a classifier of pictures: an id and a probability for each class, in the sample submission's form."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fdl.data.formats import cells
from fdl.data.formats.class_folders import split_named
from fdl.data.formats.listing import Picture, list_pictures, parts_of
from fdl.files import write_all
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.picture_inputs import read_files, spec_of
from fdl.tasks.task import View
from fdl.types import UserError, printable

FILE = "submission.csv"


def is_sample(source: str) -> bool:
    """Return whether a prediction's input is a table, as a sample submission is, and no picture."""
    return Path(source).suffix.lower() in (".csv", ".tsv")


def write_submission(view: View, source: str, out: Path) -> list[Path]:
    """Write submission.csv: the columns of the sample submission `source`, a row for each of its ids, sorted by id.

    An id is the name of a picture without its suffix, anywhere in the sample's folder; where several have that name, the
    one in the folder of the test pictures is meant. The probabilities of a row sum to 1.

    Raises:
        UserError: the sample cannot be read, its classes are not the model's, or an id has no picture that can be read.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(
            f"--input: no file {printable(source)!r}; give Kaggle's sample_submission.csv beside its pictures"
        )
    columns, ids = _read_sample(path)
    spec = spec_of(view.splits)
    files = _pictures_of(path, ids)
    order: np.ndarray | None = None
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    for chunk in read_files([(each, files[each]) for each in sorted(ids)], [], spec):
        if chunk.bad:
            raise UserError(f"--input: {chunk.bad[0]}; a submission needs the picture of every id")
        probabilities = softmax(view.outputs({"inputs": chunk.rows})).astype(np.float64)
        probabilities /= probabilities.sum(-1, keepdims=True)
        if order is None:
            order = _order(columns[1:], class_names(view.splits, probabilities.shape[1]), path)
        for name, row in zip(chunk.names, probabilities[:, order], strict=True):
            writer.writerow([name, *(f"{value:.9f}" for value in row)])
    return write_all(out, {FILE: table.getvalue()})


def _read_sample(path: Path) -> tuple[list[str], list[str]]:
    """Return (the names of the columns, the ids)."""
    held = cells.read(path, "none")
    if len(held.columns) < 3:
        raise UserError(f"{held.where} is no sample submission: expected a column of ids and one for each class")
    first, *ids = [str(cell).strip() for cell in held.columns[0]]
    columns = [first, *(str(column[0]).strip() for column in held.columns[1:])]
    if not ids:
        raise UserError(f"{held.where} has no ids: expected a row for each picture")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{held.where}: the id {printable(twice[0], 60)!r} comes twice; leave one out")
    return columns, ids


def _pictures_of(path: Path, ids: Sequence[str]) -> dict[str, Path]:
    """Find the picture of every id."""
    listing = list_pictures(path.parent)
    wanted = set(ids)
    found: dict[str, list[Picture]] = {}
    for picture in listing.pictures:
        name = PurePosixPath(picture.path).stem
        if name in wanted:
            found.setdefault(name, []).append(picture)
    missing = [name for name in ids if name not in found]
    if missing:
        raise UserError(
            f"{printable(path)}: {len(missing):,} of {len(ids):,} ids have no picture in {printable(path.parent)}, such as "
            f"{printable(missing[0], 60)!r}; add them, or leave their rows out"
        )
    return {name: path.parent / _only(name, pictures).path for name, pictures in found.items()}


def _only(name: str, pictures: Sequence[Picture]) -> Picture:
    tests = [picture for picture in pictures if split_named(parts_of(picture.path)[0]) == "test"]
    chosen = tests if len(pictures) > 1 else pictures
    if len(chosen) != 1:
        raise UserError(
            f"the id {printable(name, 60)!r} names {len(pictures)} pictures; keep one, or one in a folder test"
        )
    return chosen[0]


def _order(columns: Sequence[str], classes: Sequence[str], path: Path) -> np.ndarray:
    """Return for each of the sample's columns the number of its class."""
    for known, others, what in (
        (set(columns), classes, "has no column for the model's class"),
        (set(classes), columns, "asks for the class, which the model was not trained on,"),
    ):
        if unknown := [name for name in others if name not in known]:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UserError(f"{printable(path)} {what} {printable(unknown[0], 60)!r}{more}; make their names agree")
    return np.array([list(classes).index(name) for name in columns])
