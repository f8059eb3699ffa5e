"""Rows of a table: the columns of a data set, a user's own rows read from CSV, and features for a linear baseline."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import numpy as np

from fdl.data.splits import Splits
from fdl.types import Arrays, UserError

MISSING = ("", "na", "nan", "null", "none")


def numeric(inputs: Arrays | np.ndarray) -> np.ndarray:
    """The numeric columns [N, F]; a missing value is NaN."""
    values = np.asarray(inputs["numeric"] if isinstance(inputs, dict) else inputs, np.float64)
    return values.reshape(len(values), -1)


def categories(inputs: Arrays | np.ndarray) -> np.ndarray:
    """The category columns [N, K] as numbers; K is 0 where there are none."""
    if not isinstance(inputs, dict) or "category" not in inputs:
        return np.zeros((len(numeric(inputs)), 0), np.int64)
    values = np.asarray(inputs["category"]).astype(np.int64)
    return values.reshape(len(values), -1)


def columns(splits: Splits) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The names of the numeric columns, and category column -> its values in the order of their numbers.

    Read from `splits.facts`; numeric columns without a name there are numbered.
    """
    count = numeric(splits.train["inputs"]).shape[1]
    names = list(splits.facts.numeric[:count])
    return names + [f"column {i + 1}" for i in range(len(names), count)], dict(splits.facts.categories)


def read_csv(path: str, splits: Splits) -> tuple[list[str], list[list[str]], Arrays]:
    """The header, the cells and the inputs of the user's rows; columns in any order, others are carried along unread.

    An empty numeric cell (or NA, NaN, null) is a missing value, as in training.

    Raises:
        UserError: no such file, not UTF-8 CSV, a column missing or named twice, or a bad cell (with line and column).
    """
    if not os.path.isfile(path):
        raise UserError(f"--input: no file {path!r}; give a CSV file")
    numbers, texts = columns(splits)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            wanted = [*numbers, *texts]
            for name in wanted:
                if header.count(name) != 1:
                    fault = "named twice" if name in header else "missing"
                    raise UserError(f"{path}: column {name!r} is {fault}; the first line must name {', '.join(wanted)}")
            cells, values, kinds = [], [], []
            for row in reader:
                if not row:
                    continue
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise UserError(f"{where}: {len(row)} cells under {len(header)} column names; mend the line")
                named = dict(zip(header, row, strict=True))
                cells.append(row)
                values.append([_number(named[name], f"{where}, column {name!r}") for name in numbers])
                kinds.append([_kind(named[name], known, f"{where}, column {name!r}") for name, known in texts.items()])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as UTF-8 CSV: {error}; mend the file") from error
    if not cells:
        raise UserError(f"{path}: no rows under the column names; give at least one")
    return header, cells, _like(splits.train["inputs"], np.array(values), np.array(kinds))


def _number(cell: str, where: str) -> float:
    if cell.strip().lower() in MISSING:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where}: {cell[:40]!r} is no number; write one, or leave the cell empty if it is not known")
    return number


def _kind(cell: str, known: tuple[str, ...], where: str) -> int:
    if cell.strip() not in known:
        raise UserError(f"{where}: {cell[:40]!r} is none of {', '.join(known[:20])}; write one of these")
    return known.index(cell.strip())


def _like(inputs: Arrays | np.ndarray, values: np.ndarray, kinds: np.ndarray) -> Arrays:
    """Host inputs with the structure and dtypes of the training rows."""
    if not isinstance(inputs, dict):
        return {"inputs": values.astype(np.asarray(inputs).dtype)}
    rows = {"numeric": values.astype(np.asarray(inputs["numeric"]).dtype)}
    if "category" in inputs:
        like = np.asarray(inputs["category"])
        rows["category"] = kinds.astype(like.dtype).reshape(len(kinds), *like.shape[1:])
    return {"inputs": rows}


def linear_features(train: Arrays | np.ndarray, rows: Arrays | np.ndarray) -> np.ndarray:
    """[N, P] features of `rows`: ones, standardised numbers (the median for what is missing), one-hot categories.

    Every statistic is of `train`.
    """
    seen, values = numeric(train), numeric(rows)
    known = np.where(np.isnan(seen).all(0), 0.0, seen)  # a column without a single value says nothing
    median, mean, spread = np.nanmedian(known, axis=0), np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    values = (np.where(np.isnan(values), median, values) - mean) / np.where(spread > 0, spread, 1)
    kinds = [
        column[:, None] == np.unique(seen_column)
        for column, seen_column in zip(categories(rows).T, categories(train).T, strict=True)
    ]
    return np.concatenate([np.ones((len(values), 1)), values, *kinds], axis=1)
