"""California housing: census block groups of 1990 (Pace and Barry 1997), with a text column and missing cells."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.splits import OnBad
from fdl.types import Arrays, UserError, one_line, printable

Line = tuple[int, list[str] | str]
"""A line's number in its file, and its cells or, where it has none, why."""

NUMERIC = (
    "longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households",
    "median_income",
)  # fmt: skip
CATEGORY = "ocean_proximity"
TARGET = "median_house_value"
OTHER = "(other)"
TEST_SEED, TEST_SHARE = 0, 0.2
MAX_BYTES = 1 << 28
LARGEST = 1e18  # the square of a larger one is no float32, and the model's activations would be infinite
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() would take 1_000 and inf as well


def read(path: Path) -> list[Line]:
    """The lines of a CSV file, header first; one that cannot be read as cells is given as the reason (a str).

    A cell may not run over the end of its line: a quote left open spoils one line, not all that follow.

    Raises:
        UserError: the file as a whole is no table: a web page, UTF-16, binary, too large, without a header.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; mend its rights or get it again") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the most that is read of a table: cut it")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16, not UTF-8 text: save it as UTF-8 CSV")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"<":
        raise UserError(f"{path} is an HTML page, not a table: get the CSV file itself")
    lines: list[Line] = [(number, _cells(line)) for number, line in enumerate(data.splitlines(), 1)]
    if not lines:
        raise UserError(f"{path} is empty: get the file again")
    return lines


def _cells(line: bytes) -> list[str] | str:
    """The cells of one line, or why there are none."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is no UTF-8 text; save it as UTF-8 CSV"
    if not text:
        return "the line is empty; remove it"
    if "\0" in text:
        return "a NUL byte is no text; remove it"
    if text.count('"') % 2:
        return "a quote is left open; mend it (a cell may not run over the end of its line)"
    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        return f"{one_line(error)}; mend its quotes"


def arrays(lines: Sequence[Line], where: str, on_bad: OnBad = "stop") -> tuple[Arrays, Arrays, dict]:
    """(train, test, info) of a table with California housing's columns, in any order.

    Each split is {"inputs": {"numeric": float32 [N, 8], NaN where missing, "category": int32 [N]}, "targets": float32
    [N], 100,000 dollars}. A fifth of the rows, by a permutation with a fixed seed, is for testing. The categories are
    those of the training rows, in order, then one for any other.

    Raises:
        BadInputs: lines have another number of cells than the header, or cells that are no finite number, and `on_bad`
            is "stop"; every such line is in it.
        UserError: a column is missing, or fewer than two good rows are left.
    """
    column = _columns(lines[0][1], where)
    bad: list[Bad] = []
    number: list[list[float]] = []
    text: list[str] = []
    for line, row in lines[1:]:
        try:
            if isinstance(row, str):
                raise _BadCell("", row)
            if len(row) != len(column):
                raise _BadCell("", f"{len(row)} cells, the header has {len(column)}; mend it")
            number.append([_number(row[column[name]], name, name != TARGET) for name in (*NUMERIC, TARGET)])
            text.append(row[column[CATEGORY]].strip())
        except _BadCell as error:
            name, reason = error.args
            bad.append(Bad(where, f"line {line}{name and ', column '}{name}", reason))
    skipped = settle(bad, len(lines) - 1, "rows", on_bad)
    if len(number) < 2:
        raise UserError(f"{where} holds {len(number)} good rows of data: at least 2 are needed; get the whole file")
    table = np.asarray(number, np.float64)

    order = np.random.default_rng(TEST_SEED).permutation(len(table))
    num_test = max(1, round(TEST_SHARE * len(table)))
    test_rows, train_rows = np.sort(order[:num_test]), np.sort(order[num_test:])
    categories = sorted({text[row] for row in train_rows})

    def split(chosen: np.ndarray) -> Arrays:
        category = _numbers_of((text[row] for row in chosen), categories)
        numeric = table[chosen, :-1].astype(np.float32)
        return {
            "inputs": {"numeric": numeric, "category": category},
            "targets": (table[chosen, -1] / 1e5).astype(np.float32),
        }

    info: dict = {
        "columns": list(NUMERIC), "category_column": CATEGORY, "categories": [*categories, OTHER], "target": TARGET,
        "unit": "100,000 dollars",
    }  # fmt: skip
    return split(train_rows), split(test_rows), info | ({"skipped": skipped} if skipped else {})


def _columns(header: list[str] | str, where: str) -> dict[str, int]:
    """The place of each column in a row."""
    if isinstance(header, str):
        raise UserError(f"{where}, line 1: the header cannot be read: {header}")
    found = [cell.strip() for cell in header]
    wanted = (*NUMERIC, TARGET, CATEGORY)
    if sorted(found) != sorted(wanted):
        other = next((mark for mark in ";\t|" if len(found) == 1 and found[0].count(mark) >= len(wanted) - 1), "")
        if other:
            raise UserError(f"{where}: its cells stand between {other!r}, expected commas: save it with commas")
        lacks, more = sorted(set(wanted) - set(found)), one_line(sorted(found))
        raise UserError(
            f"{where}: the header {more} lacks {lacks or 'nothing but repeats a column'}; expected {list(wanted)}"
        )
    return {name: found.index(name) for name in wanted}


def _numbers_of(values: Iterable[str], categories: Sequence[str]) -> np.ndarray:
    """int32: each value's place among the categories; a value that is not among them gets the next number."""
    number = {name: place for place, name in enumerate(categories)}
    return np.asarray([number.get(value, len(categories)) for value in values], np.int32)


def _number(cell: str, column: str, may_be_missing: bool) -> float:
    cell = cell.strip()
    if not cell and may_be_missing:
        return math.nan
    try:
        value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        empty = (
            "leave it empty where the value is missing" if may_be_missing else "it is the target and cannot be missing"
        )
        raise _BadCell(column, f"{printable(cell, 40)!r} is no number; {empty}")
    if abs(value) > LARGEST:
        raise _BadCell(column, f"{printable(cell, 40)!r} is beyond {LARGEST:g}; mend it")
    return value


class _BadCell(Exception):
    """(column, or "" for the whole line; reason)"""
