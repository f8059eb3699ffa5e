"""The cells of a CSV file: one reader, with one set of rules, for tables, series and labelled texts, in training and prediction.

The separator (comma, semicolon, tab, bar), a decimal comma, a byte-order mark and the header are recognised, and `Cells.found`
says what was. Blank lines and lines of separators alone are passed over. A cell does not run over the end of its line: an open
quote spoils one line, not all that follow.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.signatures import LENGTH, content_name
from fdl.types import UserError, one_line, printable

MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""The spellings of a missing value, in any case."""
LARGEST = 1e18
"""The square of a larger number is no float32, and a model's activations would be infinite."""
MAX_BYTES = 1 << 30
UNNAMED = "unnamed"  # what a column without a name is called, with its number; pandas writes its index so
Header = Literal["auto", "yes", "none"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() would take 1_000 and inf as well
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_WITH_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
_DECORATED = re.compile(r"[+-]?\s*[$€£¥]?\s*\d[\d., ']*\s*[$€£¥%]?")
_SAMPLE = 1000  # lines that decide on the separator and the decimal sign
_BLOCK = 1 << 15  # rows converted at once: Python's strings of more would take many times the file's size


@dataclasses.dataclass(frozen=True)
class Cells:
    """A table as text.

    Attributes:
        where: the file, for messages.
        names: of the columns; "column 1", "column 2", ... where there is no header, "unnamed 1" for an empty name.
        columns: one array of strings [N] (NumPy's StringDType) a column.
        lines: int64 [N], the number of each row's line in the file.
        bad: lines that are no rows.
        decimal: the character before a number's fraction.
        missing: the spellings of a missing value, in small letters.
        found: what was recognised and is not the rule ("semicolons", "decimal commas").
    """

    where: str
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    lines: np.ndarray
    bad: tuple[Bad, ...] = ()
    decimal: str = "."
    missing: frozenset[str] = MISSING
    found: tuple[str, ...] = ()

    def column(self, name: str) -> np.ndarray:
        return self.columns[self.names.index(name)]

    def cell(self, row: int, name: str) -> str:
        return str(self.column(name)[row])

    def place(self, row: int, name: str) -> str:
        """Say where the cell is, for a message."""
        return f"line {self.lines[row]}, column {name}"

    def is_missing(self, cell: str) -> bool:
        return cell.strip().lower() in self.missing

    def numbers(self, name: str, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return (values float64 [N], wrong bool [N]) of a column's cells; NaN where the cell is missing or wrong.

        Wrong is what is neither missing nor a decimal number of at most `LARGEST`: words, `1_000`, `inf`, `1e39`.
        """
        column = self.column(name)[rows]
        blocks = [column[i : i + _BLOCK].tolist() for i in range(0, len(column), _BLOCK)]
        parts = [_numbers(block, self.decimal, self.missing) for block in blocks]
        values = np.concatenate([np.empty(0), *(part for part, _ in parts)])
        return values, np.concatenate([np.empty(0, bool), *(part for _, part in parts)])


def read(path: Path, header: Header = "auto", missing: Sequence[str] = ()) -> Cells:
    """Read the cells of a file.

    Args:
        header: whether the first line names the columns; "auto": where no cell of it is a number.
        missing: further spellings of a missing value, such as -999.

    Raises:
        UserError: the file as a whole is no table: a web page, UTF-16, binary, too large, empty, or with a header that
            cannot be the header of what follows.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; correct its rights or its name") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB, the most that is read of a table: cut it")
    return parse(data, str(path), header, missing)


def parse(data: bytes, where: str, header: Header = "auto", missing: Sequence[str] = ()) -> Cells:
    """Parse the cells of a file's bytes; see `read`."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{where} is UTF-16, not UTF-8 text: save it as UTF-8 CSV")
    marked = data.startswith(b"\xef\xbb\xbf")
    data = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\x1a")  # DOS ends a text with Ctrl-Z
    if content := content_name(data[:LENGTH]):
        raise UserError(f"{where} is {content}, not a table: get the CSV file itself")
    lines = list(enumerate(data.splitlines(), 1))
    declared = re.fullmatch(rb"sep=(.)", lines[0][1]) if lines else None  # Excel's own first line
    lines = [(number, line) for number, line in lines[bool(declared) :] if line.strip()]
    if not lines:
        raise UserError(f"{where} is empty: get the file again")
    sample = [line.decode(errors="replace") for _, line in lines[:_SAMPLE]]
    separator = declared[1].decode(errors="replace") if declared else _separator(sample)
    first = _cells(lines[0][1], separator)
    if isinstance(first, str):
        raise UserError(f"{where}, line {lines[0][0]}: the header cannot be read: {first}")
    decimal = _decimal(sample, separator)
    headed = header == "yes" or (header == "auto" and not any(_is_number(cell.replace(decimal, ".")) for cell in first))
    names = _names(first, where, lines[0][0]) if headed else tuple(f"column {i + 1}" for i in range(len(first)))
    columns, places, bad = _columns(lines[headed:], separator, len(names), where)
    found = [
        *(["a byte-order mark"] if marked else []),
        *([_SEPARATORS.get(separator, f"cells between {separator!r}")] if separator != "," else []),
        *(["decimal commas"] if decimal == "," else []),
        *([] if headed else ["no header"]),
    ]
    known = MISSING | {word.strip().lower() for word in missing}
    return Cells(where, names, columns, places, tuple(bad), decimal, known, tuple(found))


def of_rows(rows: Sequence[Sequence[str]], where: str) -> Cells:
    """Make cells from a program's rows: header first."""
    columns = tuple(np.array(column, np.dtypes.StringDType()) for column in zip(*rows[1:], strict=True))
    return Cells(where, tuple(rows[0]), columns, np.arange(2, len(rows) + 1))


def why_wrong(cell: str, decimal: str = ".") -> str:
    """Say what is wrong with a cell that `Cells.numbers` refuses, and what to write."""
    shown = repr(printable(cell.strip(), 40))
    if _is_number(cell.replace(decimal, ".")):
        return f"{shown} is beyond {LARGEST:g}; write a smaller number"
    if is_decorated(cell):
        return (
            f"{shown} is no number; write it without separators of thousands and without signs of currency or per cent"
        )
    return f"{shown} is no number; write one such as 1{decimal}5, or leave the cell empty where it is not known"


def is_decorated(cell: str) -> bool:
    """Return whether the cell looks like a number for people: 1,234.50 or $3 or 5 %."""
    return bool(_DECORATED.fullmatch(cell.strip()))


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell.strip()))


def _numbers(cells: list[str], decimal: str, missing: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
    cells = [cell.strip().lower() for cell in cells]
    known = np.fromiter((cell not in missing for cell in cells), bool, len(cells))
    values, wrong = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
    present = cells if known.all() else list(itertools.compress(cells, known))
    if decimal != ".":
        present = [cell.replace(".", "x").replace(decimal, ".") for cell in present]
    try:
        if not set("".join(present)) <= set("0123456789+-.e"):
            raise ValueError
        values[known] = np.fromiter(map(float, present), np.float64, len(present))
    except ValueError:  # some are no numbers: each separately
        values[known] = [float(cell) if _NUMBER.fullmatch(cell) else np.inf for cell in present]
    wrong[known] = np.abs(values[known]) > LARGEST
    values[wrong] = np.nan
    return values, wrong


def _cells(line: bytes, separator: str) -> list[str] | str:
    """Split one line into cells, or say why there are none."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is no UTF-8 text; save it as UTF-8 CSV"
    if "\0" in text:
        return "a NUL byte is no text; remove it"
    if text.count('"') % 2:
        return "a quote is left open; close it (a cell may not run over the end of its line)"
    try:
        return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration) as error:
        return f"{one_line(error)}; correct its quotes"


def _rows(lines: Sequence[tuple[int, bytes]], separator: str) -> Iterable[list[str] | str]:
    """Split each line into cells, or say why there are none: all at once where no line needs care."""
    whole = b"\n".join(line for _, line in lines)
    if b'"' not in whole and b"\0" not in whole:
        try:
            return [line.split(separator) for line in whole.decode().split("\n")]
        except UnicodeDecodeError:
            pass
    return (_cells(line, separator) for _, line in lines)


def _columns(
    lines: Sequence[tuple[int, bytes]], separator: str, width: int, where: str
) -> tuple[tuple[np.ndarray, ...], np.ndarray, list[Bad]]:
    """Return (columns, numbers of their lines, bad lines)."""
    bad: list[Bad] = []
    blocks: list[list[np.ndarray]] = [[np.empty(0, np.dtypes.StringDType())] for _ in range(width)]
    places: list[int] = []
    other: Counter[int] = Counter()
    for start in range(0, len(lines), _BLOCK):
        block, rows = lines[start : start + _BLOCK], []
        for (number, _), row in zip(block, _rows(block, separator), strict=True):
            if isinstance(row, str):
                bad.append(Bad(where, f"line {number}", row))
            elif len(row) == width:
                if width == 1 or any(map(str.strip, row)):
                    rows.append(row)
                    places.append(number)
            elif any(map(str.strip, row)):
                other[len(row)] += 1
                bad.append(Bad(where, f"line {number}", f"{len(row)} cells, the header has {width}; correct the line"))
        for column, cells in zip(blocks, zip(*rows, strict=True) if rows else [], strict=False):
            column.append(np.array(cells, np.dtypes.StringDType()))
    if not places and other and other.most_common(1)[0][1] > 1:
        raise UserError(
            f"{where}: its first line has {width} cells and no other line has as many ({other.most_common(1)[0][0]} are "
            "usual): the first line must name every column, and no line may end in a separator of its own"
        )
    return tuple(np.concatenate(column) for column in blocks), np.asarray(places, np.int64), bad


def _names(cells: Sequence[str], where: str, line: int) -> tuple[str, ...]:
    names = tuple(printable(cell.strip(), 80) or f"{UNNAMED} {i + 1}" for i, cell in enumerate(cells))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"{where}, line {line}: the column {twice[0]!r} is named twice; give each column a name of its own"
        )
    return names


def _separator(sample: Sequence[str]) -> str:
    """Choose the separator that gives most lines the same number of cells; of equals the one that leaves most numbers."""

    def score(separator: str) -> tuple[float, float]:
        rows = [row for line in sample if not isinstance(row := _cells(line.encode(), separator), str)]
        width, agreeing = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        whole = [_is_number(cell) or bool(_WITH_COMMA.fullmatch(cell.strip())) for row in rows for cell in row]
        return (agreeing, sum(whole) / len(whole)) if width > 1 else (0, 0)

    return max(_SEPARATORS, key=score)  # of equals the first: a comma


def _decimal(sample: Sequence[str], separator: str) -> str:
    """Return a comma where numbers have one and none has a point, and it cannot be a separator of thousands."""
    rows = [row for line in sample if not isinstance(row := _cells(line.encode(), separator), str)]
    cells = [cell.strip() for row in rows for cell in row]
    commas = [cell for cell in cells if _WITH_COMMA.fullmatch(cell)]
    points = any(_WITH_POINT.fullmatch(cell) for cell in cells)
    return "," if not points and any(not _THOUSANDS.fullmatch(cell) for cell in commas) else "."
