"""metrics.jsonl read from its end: cut back at a resume, followed while it grows. Old rows are never read for it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]
"""One line of metrics.jsonl: "step", and what was measured at it."""

_BLOCK = 1 << 16


def parse_row(line: bytes) -> Row | None:
    """Parse one line; None where it is not a complete row (a kill may have cut it)."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int) or not line.endswith(b"\n"):
        return None
    return as_numbers(row)


def as_numbers(metrics: Mapping[str, object]) -> dict[str, Any]:
    """Return metrics read from JSON as numbers again: null is how a number that is not finite was written."""
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def last_rows(path: Path, first: int) -> list[Row]:
    """Read the rows of step `first` and later."""
    found = []
    for _, row in _backwards(path):
        if row is not None and row["step"] < first:
            break
        if row is not None:
            found.append(row)
    return found[::-1]


def cut_rows(path: Path, upto: int) -> None:
    """Remove the rows after step `upto`, and a half-written last line. Makes an empty file where there is none."""
    path.touch()
    end = 0
    for start_end, row in _backwards(path):
        if row is not None and row["step"] <= upto:
            end = start_end[1]
            break
    os.truncate(path, end)


def _backwards(path: Path) -> Iterator[tuple[tuple[int, int], Row | None]]:
    """Yield ((start, end), row) of each line, the last one first; the row is None where the line is not complete."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        at = end = file.seek(0, os.SEEK_END)
        rest = b""  # the part of the file from `at` to `end` that has not been yielded
        while at > 0 or rest:
            cut = rest.rfind(b"\n", 0, max(0, len(rest) - 1)) + 1
            if cut == 0 and at > 0:
                step = min(_BLOCK, at)
                rest, at = _read(file, at - step, step) + rest, at - step
                continue
            yield (at + cut, end), parse_row(rest[cut:])
            rest, end = rest[:cut], at + cut


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a growing file has been read: the offset, and the last line before it, which tells whether the file was cut."""

    offset: int = 0
    line: bytes = b""


def new_rows(path: Path, position: Position = Position()) -> tuple[list[Row], Position]:
    """Read the complete rows after a position, and return the position after them.

    If the file was cut back and has grown again meanwhile (a resume), it is read from its start, and rows that were read
    before are returned again.
    """
    if not path.exists():
        return [], Position()
    with open(path, "rb") as file:
        if _read(file, position.offset - len(position.line), len(position.line)) != position.line:
            position = Position()
        file.seek(position.offset)
        whole, _, _ = file.read().rpartition(b"\n")
    lines = [line + b"\n" for line in whole.split(b"\n")] if whole else []
    if not lines:
        return [], position
    rows = [row for line in lines if (row := parse_row(line)) is not None]
    return rows, Position(position.offset + len(whole) + 1, lines[-1])
