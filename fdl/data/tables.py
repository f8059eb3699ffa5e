"""California housing: census block groups of 1990 (Pace and Barry 1997), with a text column and missing cells."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fdl.types import Arrays, UserError

NUMERIC = (
    "longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households",
    "median_income",
)  # fmt: skip
CATEGORY = "ocean_proximity"
TARGET = "median_house_value"
OTHER = "(other)"
TEST_SEED, TEST_SHARE = 0, 0.2


def read(path: Path) -> list[list[str]]:
    """The rows of a CSV file, header first, every one with as many cells as the header.

    Raises:
        UserError: the file is no CSV in UTF-8, or a row has another number of cells; with the line.
    """
    rows: list[list[str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row:
                    raise UserError(f"{path}, line {reader.line_num}: the line is empty; remove it")
                if any("\n" in cell or "\r" in cell for cell in row):
                    raise UserError(
                        f"{path}, line {reader.line_num}: a cell runs over the end of its line; mend its quotes"
                    )
                if rows and len(row) != len(rows[0]):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} cells, the header has {len(rows[0])}: mend it"
                    )
                rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; mend the line") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8 CSV"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(rows) < 3:
        raise UserError(f"{path} holds {max(len(rows) - 1, 0)} rows of data: at least 2 are needed")
    return rows


def arrays(rows: Sequence[Sequence[str]], where: str) -> tuple[Arrays, Arrays, dict]:
    """(train, test, info) of a table with California housing's columns, in any order.

    Each split is {"inputs": {"numeric": float32 [N, 8], NaN where missing, "category": int32 [N]}, "targets": float32
    [N], 100,000 dollars}. A fifth of the rows, by a permutation with a fixed seed, is for testing. The categories are
    those of the training rows, in order, then one for any other.

    Raises:
        UserError: a column is missing, or a cell is no finite number; with line and column.
    """
    header = [cell.strip() for cell in rows[0]]
    wanted = (*NUMERIC, TARGET, CATEGORY)
    if sorted(header) != sorted(wanted):
        lacks, more = sorted(set(wanted) - set(header)), sorted(header)
        raise UserError(
            f"{where}: the header {more} lacks {lacks or 'nothing but repeats a column'}; expected {list(wanted)}"
        )
    column = {name: header.index(name) for name in wanted}
    number = [
        [
            _number(row[column[name]], f"{where}, line {line}, column {name}", name != TARGET)
            for name in (*NUMERIC, TARGET)
        ]
        for line, row in enumerate(rows[1:], start=2)
    ]
    table = np.asarray(number, np.float64)
    text = [row[column[CATEGORY]].strip() for row in rows[1:]]

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

    info = {
        "columns": list(NUMERIC), "category_column": CATEGORY, "categories": [*categories, OTHER], "target": TARGET,
        "unit": "100,000 dollars",
    }  # fmt: skip
    return split(train_rows), split(test_rows), info


def _numbers_of(values: Iterable[str], categories: Sequence[str]) -> np.ndarray:
    """int32: each value's place among the categories; a value that is not among them gets the next number."""
    number = {name: place for place, name in enumerate(categories)}
    return np.asarray([number.get(value, len(categories)) for value in values], np.int32)


def _number(cell: str, where: str, may_be_missing: bool) -> float:
    if not cell.strip() and may_be_missing:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        empty = (
            "leave it empty where the value is missing" if may_be_missing else "it is the target and cannot be missing"
        )
        raise UserError(f"{where}: {cell!r} is no number; {empty}")
    return value
