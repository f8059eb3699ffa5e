"""What each column of a user's table is: the target, numbers, categories, or nothing to learn from."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fdl.data.formats import cells
from fdl.data.formats.cells import Cells
from fdl.data.formats.tables import ABSENT, labels_of
from fdl.types import UserError, one_line, printable

Kind = Literal["auto", "regression", "classification"]

TARGET_NAMES = ("target", "label", "class", "y")
MOST_CATEGORIES = 1000
FEW = 20
"""So many different values are few: of a text column always categories, of whole numbers perhaps classes."""

_SAMPLE = 20_000  # rows that decide what a column is
_INDEX = re.compile(rf"{cells.UNNAMED}:? \d+|index|idx|id|row|row_?id|.+_id|.+[a-z]I[dD]", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which column is what; `left_out`: column -> why."""

    target: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    text: str = ""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def assign(
    held: Cells, target: str = "", numeric: Sequence[str] = (), categorical: Sequence[str] = (),
    ignore: Sequence[str] = (), text: str = "",
) -> Roles:  # fmt: skip
    """Assign a role to every column, from what the user says and else from its cells.

    Raises:
        UserError: a name that is no column, or no column is left to predict from.
    """
    for name in filter(None, (target, *numeric, *categorical, *ignore, text)):
        require_column(held, name)
    if not target:
        named = [name for name in held.names if name.lower() in TARGET_NAMES]
        target = named[0] if len(named) == 1 else held.names[-1]
    if text:
        return Roles(target, text=text)
    found = (
        look_at(held, (target, *ignore)) | dict.fromkeys(numeric, "numeric") | dict.fromkeys(categorical, "categorical")
    )
    found.pop(target, None)
    left_out = {name: role for name, role in found.items() if role not in ("numeric", "categorical")}
    if len(left_out) == len(found):
        raise UserError(
            f"{held.where}: no column is left to predict {target!r} from"
            + "".join(f"; {name}: {why}" for name, why in list(left_out.items())[:5])
            + "; name columns to use in numeric= or categorical="
        )
    first, second = (
        tuple(name for name in held.names if found.get(name) == kind) for kind in ("numeric", "categorical")
    )
    return Roles(target, first, second, "", left_out)


def require_column(held: Cells, name: str) -> None:
    """Raise UserError with the nearest name unless there is a column of that name."""
    if name not in held.names:
        near = difflib.get_close_matches(name, held.names, 1, cutoff=0)[0]
        raise UserError(
            f"{held.where} has no column {printable(name, 60)!r}; the nearest is {near!r}, and there are "
            f"{one_line(', '.join(held.names))}"
        )


def look_at(held: Cells, ignore: Sequence[str] = ()) -> dict[str, str]:
    """Say what each column looks like: "numeric" or "categorical"; else why it should be left out."""
    return {
        name: _looks_like(held, name, first=place == 0) for place, name in enumerate(held.names) if name not in ignore
    }


def _looks_like(held: Cells, name: str, first: bool) -> str:
    """Return "numeric" or "categorical"; else why the column should be left out."""
    column = held.column(name)
    if len(column) == 0 or (column == column[0]).all():
        return "one value"
    values, wrong = held.numbers(name, slice(_SAMPLE))
    if not wrong.any() and np.isnan(values).all():  # it may begin later
        values, wrong = held.numbers(name)
    numbers = (~np.isnan(values)).sum()
    if not numbers + wrong.sum():
        return "one value"
    words = numbers < wrong.sum() - _decorated(column[: len(wrong)][wrong])
    whole = numbers == len(values) and (values == np.rint(values)).all()
    counted = whole and values[0] in (0, 1) and (np.diff(values) == 1).all()
    numbered = (_INDEX.fullmatch(name) and (whole or words)) or (first and counted and name == "column 1")
    different = len(set(column.tolist())) if numbered or words else 0
    if numbered and different == len(column):
        return "an index"
    if words and different > max(FEW, min(len(column) / 2, MOST_CATEGORIES)):
        return f"{different:,} different texts in {len(column):,} rows"
    return "categorical" if words else "numeric"


def _decorated(column: np.ndarray) -> int:
    """Count cells that are numbers as people write them: faults of a numeric column rather than categories."""
    return sum(map(cells.is_decorated, column.tolist()))


def classes_of(held: Cells, target: str, kind: Kind = "auto") -> tuple[str, ...]:
    """Return the classes in the order of their numbers; empty where the target is a value.

    Raises:
        UserError: `kind` is "auto" and the target could be either, or it cannot be what is asked for.
    """
    values, wrong = held.numbers(target)
    known = values[~np.isnan(values)]
    different = np.unique(known)
    where = f"{held.where}: the target {target!r}"
    words = len(known) < wrong.sum() - _decorated(held.column(target)[wrong])
    whole = not wrong.any() and bool((known == np.rint(known)).all())
    if kind == "auto" and not words and whole and 2 < len(different) <= FEW and len(known) >= 5 * len(different):
        raise UserError(
            f"{where} has {len(different)} different whole numbers, which may be classes or values: add kind=classification "
            "or kind=regression"
        )
    if kind == "regression" or (kind == "auto" and not words and not (whole and len(different) <= 2)):
        if words or (len(different) < 2 and not wrong.any()):
            raise UserError(f"{where} has {len(different)} different numbers: nothing to predict; name another target")
        return ()
    names = [f"{value:.0f}" for value in different] if whole else sorted(set(labels_of(held, target)) - {ABSENT})
    if not 2 <= len(names) <= max(FEW, len(values) / 2):
        raise UserError(
            f"{where} has {len(names):,} different values in {len(values):,} rows: no classes; name another target"
        )
    return tuple(names)
