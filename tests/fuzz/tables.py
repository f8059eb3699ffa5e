"""CSV files with California housing's columns: written in every allowed way, with known bad lines, or damaged at random."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data import sources
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.tables import CATEGORY, NUMERIC, TARGET
from fdl.data.splits import Request
from fuzz.campaign import Case
from fuzz.mutations import mutate

NAME = "california-housing.csv"
TEXTS = (
    "INLAND",
    "NEAR BAY",
    "<1H OCEAN",
    "../../etc/passwd",
    "=1+1",
    "@cmd",
    "naïve",
    "漢字",
    "<script>",
    "a,b",
    'say "x"',
    "",
)
GOOD = ("1", "-1.5", "+2", "1e3", "1E-3", ".5", "3.", " 4 ", "-0", "1e18")
BAD = (
    "x",
    "nan",
    "inf",
    "-Infinity",
    "1e19",
    "1e999",
    "1_000",
    "0x1",
    "١",
    "1,5",
    "$3",
    "=1+1",
    "--1",
    "1e",
    "\x07",
    "1 2",
    "None",
)
HEADER = (*NUMERIC, TARGET, CATEGORY)
WHOLE = (
    b"", b"\n", b"\0" * 100, b"<!DOCTYPE html><html><body>404</body></html>", b"  <html>", b"\xff\xfea\0b\0",
    b"PK\3\4" + bytes(60), b"\x1f\x8b" + bytes(60), ",".join(HEADER).encode(), ";".join(HEADER).encode() + b"\n1;2\n" * 3,
    "\t".join(HEADER).encode(), b"a,b,c\n1,2,3\n", b'"' * 1000, b"," * 100_000, b"\r" * 1000,
)  # fmt: skip


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _rows(rng: np.random.Generator) -> list[dict[str, str]]:
    return [
        {name: f"{rng.normal() * 100:.3f}" for name in (*NUMERIC, TARGET)}
        | {name: GOOD[rng.integers(len(GOOD))] for name in (*NUMERIC, TARGET) if rng.random() < 0.5}
        | {name: "" for name in NUMERIC if rng.random() < 0.05}
        | {CATEGORY: TEXTS[rng.integers(len(TEXTS))]}
        for _ in range(rng.integers(3, 15))
    ]  # fmt: skip


def _line(rng: np.random.Generator, row: dict[str, str], columns: list[str]) -> str:
    must = [any(mark in row[name] for mark in ',"') for name in columns]
    cells = [
        _quoted(row[name]) if needs or rng.random() < 0.1 else row[name]
        for name, needs in zip(columns, must, strict=True)
    ]
    return ",".join(cells)


def _spoil(rng: np.random.Generator, row: dict[str, str], columns: list[str]) -> bytes:
    """A line that must be refused by its number."""
    plain = _line(rng, row, columns)
    kind = rng.integers(8)
    if kind == 0:
        return _line(rng, row | {TARGET: ""}, columns).encode()
    if kind == 1:
        name = (*NUMERIC, TARGET)[rng.integers(9)]
        return _line(rng, row | {name: BAD[rng.integers(len(BAD))]}, columns).encode()
    if kind == 2:
        return plain.rsplit(",", int(rng.integers(1, 4)))[0].encode() if '"' not in plain else b"1,2"
    return (
        plain.encode() + b",1", b"", plain.encode() + b'"', b'"' + plain.replace('"', "").encode(), b"\xe9" + plain.encode(),
    )[kind - 3]  # fmt: skip


def target(rng: np.random.Generator, folder: Path) -> Case:
    path = folder / "tabular" / NAME
    path.parent.mkdir()
    columns = [(*NUMERIC, TARGET, CATEGORY)[i] for i in rng.permutation(10)]
    rows = _rows(rng)
    end = ("\n", "\r\n", "\r")[rng.integers(3)].encode()
    lines = [",".join(columns).encode(), *(_line(rng, row, columns).encode() for row in rows)]
    kind, on_bad = rng.random(), ("stop", "skip")[rng.integers(2)]
    request = Request(source="files", data_dir=folder, offline=True, on_bad=on_bad)
    load = functools.partial(sources.california_housing, request)
    bad: list[int] = []
    if kind < 0.6:
        if kind < 0.35:
            bad = sorted(set(map(int, rng.integers(2, len(lines) + 1, rng.integers(1, 4)))))
            for number in bad:
                lines[number - 1] = _spoil(rng, rows[number - 2], columns)
        # Of an empty last line the end must be written, else it is no line.
        text = end.join(lines) + (end if rng.random() < 0.7 or not lines[-1] else b"")
        path.write_bytes((b"\xef\xbb\xbf" if rng.random() < 0.3 else b"") + text)
        good = [row for number, row in enumerate(rows, 2) if number not in bad]
        valid = len(good) >= 2 and (not bad or on_bad == "skip")
        return Case(load, (NAME,), valid, functools.partial(_check, good, bad, on_bad))
    if kind < 0.7:
        data = WHOLE[rng.integers(len(WHOLE))]
        path.write_bytes(data)
        return Case(load, (NAME,), False)
    path.write_bytes(mutate(rng, end.join(lines) + end))
    return Case(load, (NAME,), None, functools.partial(_finite, on_bad))


def _check(good: list[dict[str, str]], bad: list[int], on_bad: str, result: Any) -> None:
    listed = result.rows if isinstance(result, BadInputs) else getattr(result, "skipped", ())
    if isinstance(result, BadInputs) or not isinstance(result, Exception):
        assert [row.place.split(",")[0] for row in listed] == [f"line {number}" for number in bad], listed
    if isinstance(result, Exception):
        return
    targets = np.concatenate([result.train["targets"], result.test["targets"]])
    expected = np.float32([float(row[TARGET]) / 1e5 for row in good])
    np.testing.assert_array_equal(np.sort(targets), np.sort(expected))


def _finite(on_bad: str, result: Any) -> None:
    if isinstance(result, Exception):
        assert on_bad == "stop" or not isinstance(result, BadInputs)
        return
    assert all(np.isfinite(part["targets"]).all() for part in (result.train, result.test))
    assert not any(np.isinf(part["inputs"]["numeric"]).any() for part in (result.train, result.test))
