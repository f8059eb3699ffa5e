"""Users' own tables, series and texts, as their programs write them, then damaged at random: read, or refused by name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats.csv import csv_file
from fdl.data.formats.series import series_file
from fdl.data.formats.text import text_file
from fdl.data.splits import Request
from fdl.tasks import tables
from fuzz.campaign import Case
from fuzz.mutations import mutate

NAMES = ("id", "area", "größe", "kind", "when", "note", "", "y")
KINDS = ("a", "b, c", 'say "x"', "", "NA", "漢字", "1", "[x]", "\\n", "../..")


def _table(rng: np.random.Generator) -> str:
    separator, decimal = ((",", "."), (";", ","), ("\t", "."), ("|", "."), (";", "."))[rng.integers(5)]
    end = ("\n", "\r\n", "\r")[rng.integers(3)]

    def number(scale: float) -> str:
        return f"{rng.normal() * scale:.{rng.integers(0, 6)}f}".replace(".", decimal)

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in (separator, '"')) else text

    lines = [] if rng.random() < 0.2 else [separator.join(NAMES)]
    for row in range(int(rng.integers(2, 80))):
        day = np.datetime64("2024-01-30T00", "h") + row
        cells = [
            str(row), number(100), number(1e6) if rng.random() < 0.9 else ("", "?", "NaN", "1e39", "1_000")[rng.integers(5)],
            KINDS[rng.integers(len(KINDS))], str(day).replace("T", " ") + ":00", f"text {rng.integers(99)}", "", number(3),
        ]  # fmt: skip
        lines.append(separator.join(map(quoted, cells)))
    return ("sep=;\n" if separator == ";" and rng.random() < 0.2 else "") + end.join(lines) + end * int(rng.integers(3))


def table(rng: np.random.Generator, folder: Path) -> Case:
    return _case(rng, folder, _train_and_predict)


def series(rng: np.random.Generator, folder: Path) -> Case:
    return _case(rng, folder, functools.partial(series_file, window=3, horizon=2))


def text(rng: np.random.Generator, folder: Path) -> Case:
    return _case(rng, folder, functools.partial(text_file, length=16, eval_length=16))


def _case(rng: np.random.Generator, folder: Path, load: Any) -> Case:
    path = folder / "own[1].csv"
    data = _table(rng).encode("utf-8-sig" if rng.random() < 0.2 else "utf-8")
    path.write_bytes(data if rng.random() < 0.4 else mutate(rng, data))
    request = Request(data_dir=folder, offline=True, on_bad=("stop", "skip")[rng.integers(2)])
    return Case(functools.partial(load, request, path=path.name), (path.name,), None, _finite)


def _train_and_predict(request: Request, path: str) -> Any:
    splits = csv_file(request, path=path)
    if not splits.skipped:  # what training reads whole, prediction reads alike
        given = tables.read_rows(f"{request.data_dir}/{path}", splits.facts)
        for name, column in splits.train["inputs"].items():
            np.testing.assert_array_equal(given.rows["inputs"][name], column)
    return splits


def _finite(result: Any) -> None:
    if isinstance(result, Exception):
        return
    inputs = result.train["inputs"]
    for column in inputs.values() if isinstance(inputs, dict) else [np.asarray(inputs)]:
        assert not np.isinf(column).any()
    assert np.isfinite(np.asarray(result.train.get("targets", 0))).all()
