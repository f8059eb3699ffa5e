"""From a table's cells to arrays, by the same rules for training and for predicting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.cells import Cells, why_wrong
from fdl.data.splits import Facts
from fdl.types import Arrays, UserError, one_line, printable, take

OTHER, ABSENT = "(other)", "(missing)"
"""The categories of a value that is in no row of the table, and of a cell without a value."""


def category_names(held: Cells, name: str) -> tuple[str, ...]:
    """Return the categories of a column in the order of their numbers; the last is for any other value."""
    return (*sorted(set(labels_of(held, name)) - {OTHER}), OTHER)


def inputs_of(held: Cells, facts: Facts) -> tuple[Arrays, dict[int, Bad]]:
    """Return (the rows' "numeric" float32 [N, F] and "category" int32 [N, K], row -> its first bad cell)."""
    bad: dict[int, Bad] = {}
    numeric = np.empty((len(held.lines), len(facts.numeric)), np.float32)
    for place, name in enumerate(facts.numeric):
        numeric[:, place], wrong = held.numbers(name)
        for row in np.flatnonzero(wrong):
            bad.setdefault(int(row), _bad_number(held, int(row), name))
    inputs: Arrays = {"numeric": numeric}
    if facts.categories:
        codes = [_codes(labels_of(held, name), known) for name, known in facts.categories.items()]
        inputs["category"] = np.stack(codes, axis=1)
    return inputs, bad


def rows_of(held: Cells, facts: Facts, text: str = "", divisor: float = 1.0) -> tuple[Arrays, list[Bad]]:
    """Return (the good rows {"inputs", "targets"}, the bad lines and rows in the order of the file).

    Args:
        text: a column of texts, which are then the inputs as strings [N].
        divisor: of targets that are values.

    Raises:
        UserError: there is no target column, or another column is missing.
    """
    require(held, (facts.target, text) if text else (facts.target, *facts.numeric, *facts.categories))
    inputs: Any
    inputs, bad = (held.column(text).astype(object), {}) if text else inputs_of(held, facts)
    if facts.classes:
        targets = _class_numbers(held, facts)
        wrong = targets < 0
    else:
        values, _ = held.numbers(facts.target)
        targets, wrong = (values / divisor).astype(np.float32), np.isnan(values)
    for row in np.flatnonzero(wrong):
        bad.setdefault(int(row), _bad_target(held, int(row), facts))
    good = np.ones(len(targets), bool)
    good[list(bad)] = False
    rows: Arrays = {"inputs": inputs, "targets": targets}
    return rows if good.all() else take(rows, good), in_order([*bad.values(), *held.bad])


def in_order(bad: Sequence[Bad]) -> list[Bad]:
    """Sort bad lines and cells of one file by their lines."""
    return sorted(bad, key=lambda row: int(row.place.split(",")[0].removeprefix("line ")))


def require(held: Cells, names: Sequence[str]) -> None:
    """Check that all these columns are there; others may be as well.

    Raises:
        UserError: some are not.
    """
    lacks = [name for name in names if name not in held.names]
    if lacks:
        what = f"column {lacks[0]!r} is" if len(lacks) == 1 else f"columns {one_line(', '.join(map(repr, lacks)))} are"
        raise UserError(
            f"{held.where}: {what} missing; the first line must name "
            f"{one_line(', '.join(names))}, and it names {one_line(', '.join(held.names))}"
        )


def labels_of(held: Cells, name: str) -> list[str]:
    """Strip the blanks around a column's cells; use one word for all that are missing."""
    cells = map(str.strip, held.column(name).tolist())
    return [ABSENT if cell.lower() in held.missing else cell for cell in cells]


def _bad_number(held: Cells, row: int, name: str) -> Bad:
    return Bad(held.where, held.place(row, name), why_wrong(held.cell(row, name), held.decimal))


def _bad_target(held: Cells, row: int, facts: Facts) -> Bad:
    cell = held.cell(row, facts.target)
    if held.is_missing(cell):
        reason = f"{printable(cell, 40)!r}: it is the target and cannot be missing"
    elif facts.classes:
        reason = f"{printable(cell, 40)!r} is none of the classes {one_line(', '.join(facts.classes[:20]))}"
    else:
        return _bad_number(held, row, facts.target)
    return Bad(held.where, held.place(row, facts.target), reason)


def _codes(labels: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return int32 [N]: each label's place among the categories, the last for what is not among them."""
    number = {name: place for place, name in enumerate(known)}
    return np.fromiter((number.get(label, len(known) - 1) for label in labels), np.int32, len(labels))


def _class_numbers(held: Cells, facts: Facts) -> np.ndarray:
    """Return int32 [N], -1 where the cell is no class; `1.0` is the class `1`."""
    number = {name: place for place, name in enumerate(facts.classes)}
    found = np.array([number.get(label, -1) for label in labels_of(held, facts.target)], np.int32)
    other = np.flatnonzero(found < 0)
    if len(other):
        values, _ = held.numbers(facts.target)
        found[other] = [-1 if np.isnan(value) else number.get(f"{value:.15g}", -1) for value in values[other]]
    return found
