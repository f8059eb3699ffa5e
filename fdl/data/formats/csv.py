"""A user's own table as a data set: which column is predicted, which columns it is predicted from, and in what form."""

from __future__ import annotations

from typing import Any

from fdl.data.formats import cells
from fdl.data.formats.bad_inputs import settle
from fdl.data.formats.cells import Cells, Header
from fdl.data.formats.roles import Kind, assign, classes_of
from fdl.data.formats.tables import category_names, rows_of
from fdl.data.splits import Facts, Request, Splits
from fdl.types import UserError, one_line, printable


def csv_file(
    request: Request, *, path: str, target: str = "", kind: Kind = "auto", header: Header = "auto",
    numeric: tuple[str, ...] = (), categorical: tuple[str, ...] = (), ignore: tuple[str, ...] = (),
    missing: tuple[str, ...] = (), text: str = "", test: str = "",
) -> Splits:  # fmt: skip
    """Read a CSV file: "inputs" {"numeric": float32 [N, F], NaN where missing, "category": int32 [N, K]} and "targets" [N].

    "category" is absent where there are no such columns. Targets are int32 class numbers or float32 values.

    Args:
        path: the file; relative to --data_dir if it is there, else to the current folder.
        target: the column to predict. Default: the one named target, label, class or y, else the last.
        kind: what the target is. "auto": words, or whole numbers of two values, are classes; other numbers are values to
            predict. Whole numbers of 3 to 20 values that repeat five times or more could be both: then it must be said.
        header: whether the first line names the columns ("column 1", ... are their names otherwise).
        numeric, categorical: columns that are not what they look like, such as postcodes. By default a column is numeric
            where at least half of its first 20,000 known cells are numbers; then the others are faults.
        ignore: columns to leave out. So are, unasked, indices (a column of different values without a name or named id),
            columns of one value, and texts that nearly all differ; `Splits.where` names them.
        missing: further spellings of a missing value, such as -999.
        text: a column of texts; "inputs" is then that column as strings [N], for a tokeniser in `Data.encode`.
        test: a file with the test rows; default: rows are cut from this one.

    Raises:
        BadInputs: cells that cannot be read as what their column is, and `request.on_bad` is "stop".
        UserError: no such file or column, or a table from which nothing can be learnt.
    """
    held = _open(request, path, header, missing)
    roles = assign(held, target, numeric, categorical, ignore, text)
    classes = classes_of(held, roles.target, kind)
    facts = Facts(
        classes=classes,
        numeric=roles.numeric,
        categories={name: category_names(held, name) for name in roles.categorical},
        target=roles.target,
        extra=_kept(held, missing, text),
    )
    tables = [held] + ([_open(request, test, header, missing)] if test else [])
    parts, bad = zip(*(rows_of(table, facts, roles.text) for table in tables), strict=True)
    total = sum(len(table.lines) + len(table.bad) for table in tables)
    skipped = settle([row for rows in bad for row in rows], total, "rows", request.on_bad)
    for table, part in zip(tables, parts, strict=True):
        if len(part["targets"]) < 2:
            raise UserError(
                f"{table.where} holds {len(part['targets'])} good rows: at least 2 are needed; get the whole file"
            )
    said = [
        *held.found,
        f"predicts {roles.target}",
        *(f"without {name} ({why})" for name, why in roles.left_out.items()),
    ]
    return Splits(
        name=printable(held.where.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0], 60),
        source="files",
        where=f"{held.where} ({one_line('; '.join(said), 600)})",
        train=parts[0],
        test=parts[1] if test else None,
        facts=facts,
        skipped=skipped,
    )


def _kept(held: Cells, missing: tuple[str, ...], text: str) -> dict[str, Any]:
    """Return what else a prediction needs to read rows by the same rules."""
    kept = {"columns": list(held.names) if "no header" in held.found else [], "missing": list(missing), "text": text}
    return {name: value for name, value in kept.items() if value}


def _open(request: Request, path: str, header: Header, missing: tuple[str, ...]) -> Cells:
    file = request.find(path)
    if file is None or not file.is_file():
        raise UserError(f"csv: there is no file {printable(path)!r}; give the path of a CSV file")
    return cells.read(file, header, missing)
