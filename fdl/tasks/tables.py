"""Rows of a table: the columns of a data set, a user's own rows to predict, and features for a linear baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.columns import Windows
from fdl.data.facts import Facts
from fdl.data.formats import cells, tables
from fdl.data.splits import Splits
from fdl.data.table_ops import scale_of
from fdl.files import to_csv
from fdl.types import Arrays, UserError, printable

MOST_FEATURES = 2000
"""Columns of the linear baseline: more make an equation too large to be cheap."""


def numeric(inputs: Arrays | np.ndarray) -> np.ndarray:
    """Return the numeric columns [N, F]; a missing value is NaN."""
    values = np.asarray(inputs["numeric"] if isinstance(inputs, dict) else inputs, np.float64)
    return values.reshape(len(values), -1)


def categories(inputs: Arrays | np.ndarray) -> np.ndarray:
    """Return the category columns [N, K] as numbers; K is 0 where there are none."""
    if not isinstance(inputs, dict) or "category" not in inputs:
        return np.zeros((len(numeric(inputs)), 0), np.int64)
    values = np.asarray(inputs["category"]).astype(np.int64)
    return values.reshape(len(values), -1)


def columns(splits: Splits) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Return the names of the numeric columns, and category column -> its values in the order of their numbers.

    Read from `splits.facts`; numeric columns without a name there are numbered.
    """
    count = numeric(splits.train["inputs"]).shape[1]
    names = list(splits.facts.numeric[:count])
    return names + [f"column {i + 1}" for i in range(len(names), count)], dict(splits.facts.categories)


# A user's own rows


@dataclasses.dataclass(frozen=True)
class UserRows:
    """Rows to predict.

    Attributes:
        names: of all columns of the file; None where it has no header.
        cells: of each row, as they are in the file.
        rows: {"inputs": ...} in the form of the training rows.
    """

    names: tuple[str, ...] | None
    cells: Sequence[Sequence[str]]
    rows: Arrays


def is_table(facts: Facts) -> bool:
    """Return whether examples of this data set are rows of a table, which `read_rows` reads."""
    return bool(facts.numeric or facts.categories or facts.extra.get("text"))


def read_rows(source: str, facts: Facts) -> UserRows:
    """Read the rows of a CSV file by the same rules as the training table.

    Columns may be in any order, and others (the target too) are kept unread. Where the training table had no header,
    this one has none either: its columns are in the same order, with or without the target. An empty numeric cell (NA, NaN,
    null, ?) is a missing value; a category that no training row has is "(other)".

    Raises:
        UserError: no such file, no table, a column missing or named twice, or bad lines or cells (the first is named).
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"--input: there is no file {printable(source)!r}; give a CSV file")
    places = tuple(facts.extra.get("columns", ()))
    held = cells.read(path, "none" if places else "yes", facts.extra.get("missing", ()))
    if places:
        held = _named(held, places, facts.target)
    text = facts.extra.get("text", "")
    if not facts.numeric and not text and len(facts.input_shape) == 1:
        facts = dataclasses.replace(facts, numeric=tuple(f"column {i + 1}" for i in range(facts.input_shape[0])))
    tables.require(held, [text] if text else [*facts.numeric, *facts.categories])
    inputs: Any
    inputs, bad = (held.column(text).astype(object), {}) if text else tables.inputs_of(held, facts)
    listed = tables.in_order([*held.bad, *bad.values()])
    if listed:
        others = f", the first of {len(listed)} bad rows" if len(listed) > 1 else ""
        raise UserError(f"{listed[0]}{others}; correct or remove them")
    if not len(held.lines):
        raise UserError(f"{path}: no rows under the column names; give at least one")
    rows = list(zip(*(column.tolist() for column in held.columns), strict=True))
    if not text and len(facts.input_shape) == 1:
        inputs = inputs["numeric"]
    return UserRows(None if places else held.names, rows, {"inputs": inputs})


def _named(held: cells.Cells, names: tuple[str, ...], target: str) -> cells.Cells:
    """Name the columns of a table without a header as the training table's, which has the target among them."""
    without = tuple(name for name in names if name != target)
    for known in (names, without):
        if len(held.names) == len(known):
            return dataclasses.replace(held, names=known)
    raise UserError(
        f"{held.where}: {len(held.names)} columns, but the training table had {len(names)}, its target {target!r} among them, "
        f"and no header: give {len(without)} or {len(names)} columns in the same order"
    )


def predictions_csv(given: UserRows, added: Mapping[str, Sequence[str]]) -> str:
    """Format the user's rows, unchanged, with the columns `added` (name -> a cell for each row) after them."""
    header = [] if given.names is None else [(*given.names, *added)]
    return to_csv([*header, *((*row, *cells) for row, *cells in zip(given.cells, *added.values(), strict=True))])


def class_columns(probabilities: np.ndarray, classes: Sequence[str], top: int) -> dict[str, list[str]]:
    """Make a prediction table's columns class_1, confidence_1, class_2, ... from probabilities [N, C], likeliest first."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    found: dict[str, list[str]] = {}
    for rank, numbers in enumerate(best.T, 1):
        found[f"class_{rank}"] = [classes[number] for number in numbers]
        confidence = np.take_along_axis(probabilities, numbers[:, None], axis=1)[:, 0]
        found[f"confidence_{rank}"] = [f"{value:.6f}" for value in confidence]
    return found


# A linear baseline


def linear_features(train: Any, rows: Any) -> np.ndarray | None:
    """Compute features [N, P]: ones, standardised numbers (median if missing), one-hot categories.

    Every statistic is computed on `train`. None where the inputs are no table (pictures, texts, windows, other arrays), or one
    with more than `MOST_FEATURES` features.
    """
    if not is_tabular(train):
        return None
    known = [np.unique(column) for column in categories(train).T]
    seen, values = numeric(train), numeric(rows)
    if 1 + values.shape[1] + sum(map(len, known)) > MOST_FEATURES:
        return None
    seen = np.where(np.isnan(seen).all(0), 0.0, seen)  # a column without any value has no information
    median, mean = np.nanmedian(seen, axis=0), np.nanmean(seen, axis=0)
    spread = scale_of(np.nanstd(seen, axis=0), mean, len(seen))
    values = (np.where(np.isnan(values), median, values) - mean) / spread
    kinds = [column[:, None] == seen for column, seen in zip(categories(rows).T, known, strict=True)]
    return np.concatenate([np.ones((len(values), 1)), values, *kinds], axis=1)


def is_tabular(inputs: Any) -> bool:
    """Return whether inputs are the columns of a table: {"numeric", "category"}, or one array [N, F] of numbers in memory."""
    if isinstance(inputs, dict):
        return set(inputs) <= {"numeric", "category"} and "numeric" in inputs
    return isinstance(inputs, np.ndarray) and inputs.ndim == 2 and inputs.dtype.kind in "fiub"


def last_values(inputs: Any, facts: Facts) -> np.ndarray | None:
    """Return the target's last value in each window of a series, [N, 1] (or [N, 1, targets]); None for other data."""
    names = facts.target.split(", ")
    if not isinstance(inputs, Windows) or not set(names) <= set(facts.numeric):
        return None
    last = inputs.series[inputs.starts + inputs.length - 1].astype(np.float64)
    places = [facts.numeric.index(name) for name in names]
    return last[:, None, places] if len(places) > 1 else last[:, places]
