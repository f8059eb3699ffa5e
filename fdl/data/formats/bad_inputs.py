"""Files and rows that cannot be read: all of them found before training, then refused, or counted and left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from fdl.data.splits import OnBad
from fdl.files import write_all
from fdl.types import UserError, printable

FILE = "bad_inputs.csv"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so."""


class Bad(NamedTuple):
    """One bad input: its file, the place in it ("line 7, column age", or nothing), and what is wrong."""

    file: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{self.place and ', '}{self.place}: {self.reason}"


class BadInputs(UserError):
    """Some of the user's files or rows are bad. `rows` are all of them, for `write_bad_inputs`."""

    def __init__(self, rows: Sequence[Bad], total: int, kind: str) -> None:
        self.rows = tuple(rows)
        others = f", the first of {len(rows)} bad {kind} of {total:,}" if len(rows) > 1 else ""
        super().__init__(f"{rows[0]}{others}; correct or remove them, or leave them out with --set data.on_bad=skip")


def settle(rows: Sequence[Bad], total: int, kind: str, on_bad: OnBad) -> tuple[Bad, ...]:
    """Return what was skipped, for `Splits.skipped`, after a warning with their number.

    Args:
        rows: the bad ones of `total` images or rows (`kind`, in the plural).

    Raises:
        BadInputs: there are some, and they are not to be skipped.
    """
    if rows and on_bad == "stop":
        raise BadInputs(rows, total, kind)
    if rows:
        logging.warning("%d of %d %s are bad and left out; the first: %s", len(rows), total, kind, rows[0])
    return tuple(rows)


def write_bad_inputs(rows: Iterable[Bad], folder: Path) -> Path:
    """Write folder/bad_inputs.csv (file, place, reason), whole or not at all, and return its path.

    Raises:
        UserError: the folder cannot be written.
    """
    (path,) = write_all(folder, {FILE: as_csv(rows)})
    return path


def write_predictions(out: Path, files: Mapping[str, bytes | str], bad: Sequence[Bad], kind: str) -> list[Path]:
    """Write a prediction's `files`, and bad_inputs.csv where some of the user's `kind` (a plural) are bad; return the paths.

    A bad_inputs.csv of an earlier prediction does not stay beside one without bad inputs.

    Raises:
        UserError: `out` cannot be written; nothing is written then.
    """
    if not bad:
        written = write_all(out, files)
        (out / FILE).unlink(missing_ok=True)
        return written
    written = write_all(out, {**files, FILE: as_csv(bad)})
    logging.warning(
        "%d %s cannot be read and are left out, listed in %s; the first: %s", len(bad), kind, written[-1], bad[0]
    )
    return written


def as_csv(rows: Iterable[Bad]) -> str:
    """Format the text of bad_inputs.csv, in which no cell is a formula to a spreadsheet."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Bad._fields)
    writer.writerows([_cell(text) for text in row] for row in rows)
    return table.getvalue()


def _cell(text: str) -> str:
    text = printable(text, 2000)
    return f"'{text}" if text.startswith(FORMULA) else text
