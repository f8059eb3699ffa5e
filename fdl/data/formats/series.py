"""A user's own time series: windows of the past as inputs, the steps after them as targets, split in the order of time.

Legend: N windows, W steps of a window, H of the horizon, C columns.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from fdl.data.columns import Windows
from fdl.data.formats import cells
from fdl.data.formats.cells import Cells, Header
from fdl.data.formats.timeline import CYCLES, Series, calendar_of, read_series, seasons_of
from fdl.data.splits import Facts, OnBad, Request, Splits
from fdl.types import Arrays, Count, Fraction, UserError, one_line, printable

Gaps = Literal["break", "bridge"]


def series_file(
    request: Request, *, path: str, target: tuple[str, ...] = (), window: Count = 96, horizon: Count = 24, date: str = "",
    ignore: tuple[str, ...] = (), calendar: bool = True, gaps: Gaps = "break", rows: Count | None = None,
    validation: Fraction = 0.2, test: Fraction = 0.2, header: Header = "auto", missing: tuple[str, ...] = (),
) -> Splits:  # fmt: skip
    """Read a CSV file with dates: `horizon` steps of the target are forecast from `window` steps of all columns.

    Rows are read when needed from one stored series: "inputs" float32 [N, W, C], "targets" float32 [N, H], or [N, H, targets]
    where there are several. The last rows are the test part and those before them the validation part; their windows may
    begin in the part before, but no step is a target in two parts. Scale the inputs by an op fitted on the training rows.

    Args:
        path: the file; relative to --data_dir if it is there, else to the current folder.
        target: the columns to forecast; default: the last numeric one.
        window, horizon: steps of a row's inputs, and of its targets.
        date: the column of dates; default: one that holds dates. "none": the rows are in order and a step apart.
        ignore: columns to leave out; so are texts, indices and columns of one value.
        calendar: add columns with the sine and cosine of the hour of the day, the day of the week and the day of the year,
            as far as the series' steps are shorter.
        gaps: "break": no window spans a gap in the dates. "bridge": rows are taken as a step apart (trading days).
        rows: use only the first so many.
        validation, test: shares of the rows.
        header: whether the first line names the columns.
        missing: further spellings of a missing value. Missing inputs are filled with the value before; a window with a missing
            target is left out.

    Raises:
        BadInputs: cells that are no dates or no numbers, and `request.on_bad` is "stop".
        UserError: no such file or column, no dates, the same date twice, or too few rows for a window in each part.
    """
    file = request.find(path)
    if file is None or not file.is_file():
        raise UserError(f"series: there is no file {printable(path)!r}; give the path of a CSV file")
    held = cells.read(file, header, missing)
    return series_of_cells(
        held, printable(file.stem, 60), "files", request.on_bad, target=target, window=window, horizon=horizon, date=date,
        ignore=ignore, cycles=tuple(CYCLES) if calendar else (), gaps=gaps, rows=rows, validation=validation, test=test,
    )  # fmt: skip


def series_of_cells(
    held: Cells, name: str, source: str, on_bad: OnBad = "stop", *, target: tuple[str, ...], window: int, horizon: int,
    date: str = "", ignore: tuple[str, ...] = (), cycles: tuple[str, ...] = tuple(CYCLES), gaps: Gaps = "break",
    rows: int | None = None, validation: float, test: float, standin: bool = False,
) -> Splits:  # fmt: skip
    """Make the splits of `series_file` from a table's cells; `cycles` are those of `CYCLES` that get calendar columns."""
    series = read_series(held, target, date, ignore, on_bad)
    if rows is not None:
        series = series.first(rows)
    inputs, extra = inputs_of(series, cycles)
    places = [series.names.index(each) for each in series.targets]
    targets = series.values[:, places[0] if len(places) == 1 else places].astype(np.float32)

    def part(starts: np.ndarray) -> Arrays:
        return {"inputs": Windows(inputs, starts, window), "targets": Windows(targets, starts + window, horizon)}

    starts = _starts(series, places, window, horizon, gaps)
    parts = split_by_time(starts, len(inputs), window, horizon, validation, test)
    for which, chosen in parts.items():
        if not len(chosen):
            raise UserError(
                f"{held.where}: of {len(inputs):,} rows, {which} holds no window of {window} + {horizon} steps "
                f"({'; '.join(series.found)}): set a smaller window or horizon"
                + (", or gaps=bridge" if gaps == "break" and series.gaps.any() else "")
            )
    facts = Facts(
        numeric=(*series.names, *extra),
        target=", ".join(series.targets),
        outputs=horizon * len(places),
        extra={
            "window": window, "horizon": horizon, "target_columns": places, "seasons": seasons_of(series),
            "series": {
                "names": series.names, "targets": series.targets, "date": series.date, "cycles": cycles, "gaps": gaps,
                "missing": sorted(held.missing),
            },
        },
    )  # fmt: skip
    said = [*held.found, f"forecasts {facts.target}", *series.found]
    return Splits(
        name=name, source=source, where=f"{held.where} ({one_line('; '.join(said), 600)})",
        train=part(parts["train"]), validation=part(parts["validation"]) if "validation" in parts else None,
        test=part(parts["test"]) if "test" in parts else None, facts=facts, standin=standin, skipped=series.skipped,
    )  # fmt: skip


def inputs_of(series: Series, cycles: Collection[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the series with its calendar columns, float32 [T, C], and the names of those."""
    extra = calendar_of(series, cycles)
    values = np.concatenate([series.values, *(column[:, None] for column in extra.values())], axis=1)
    return values.astype(np.float32), tuple(extra)


def read_end(path: Path, facts: Facts) -> tuple[Series, np.ndarray]:
    """Read a user's file as the training series was read, to forecast what follows it.

    Returns:
        The series, and its last window, float32 [1, W, C].

    Raises:
        UserError: no such file, a column that training had is missing, too few rows, or a gap within the last window.
    """
    known, window = facts.extra["series"], facts.extra["window"]
    if not path.is_file():
        raise UserError(
            f"--input: there is no file {printable(path)!r}; give a CSV file that goes on like the training series"
        )
    held = cells.read(path, "auto", known["missing"])
    series = read_series(held, tuple(known["targets"]), known["date"], names=tuple(known["names"]))
    inputs, extra = inputs_of(series, known["cycles"])
    if (*series.names, *extra) != facts.numeric:
        raise UserError(
            f"{held.where}: its rows are {'; '.join(series.found)}; give a series with the training series' step"
        )
    if len(inputs) < window:
        raise UserError(f"{held.where} has {len(inputs):,} rows, and a forecast needs {window:,}; give a longer file")
    late = np.flatnonzero(series.gaps[len(inputs) - window + 1 :])
    if len(late) and known["gaps"] == "break":
        at = np.datetime64(int(series.times[len(inputs) - window + late[-1]]), "s")
        raise UserError(
            f"{held.where}: there is a gap after {str(at).replace('T', ' ')}, within the last {window:,} rows that the forecast "
            "is made from; fill it, or give a file that ends before it"
        )
    return series, inputs[None, -window:]


def split_by_time(
    starts: np.ndarray, total: int, window: int, horizon: int, validation: float, test: float
) -> dict[str, np.ndarray]:
    """Split windows (by their first rows, ascending) into "train", "validation" and "test"; a part of share 0 is absent.

    Of `total` rows the last share is the test part, the one before it the validation part. A window belongs to the part that
    all its targets are in; one with targets in two parts is left out.
    """
    first_validation, first_test = total - round((validation + test) * total), total - round(test * total)
    begin, end = starts + window, starts + window + horizon
    parts = {
        "train": starts[end <= first_validation],
        "validation": starts[(begin >= first_validation) & (end <= first_test)],
        "test": starts[begin >= first_test],
    }
    return {
        part: chosen for part, chosen in parts.items() if {"train": 1.0, "validation": validation, "test": test}[part]
    }


def _starts(series: Series, places: list[int], window: int, horizon: int, gaps: str) -> np.ndarray:
    """Return the first rows of the windows whose targets are all known, and that no gap breaks."""
    length = window + horizon
    starts = np.arange(max(0, len(series.times) - length + 1))
    if gaps == "break":
        stretch = np.cumsum(series.gaps)
        starts = starts[stretch[starts] == stretch[starts + length - 1]]
    missing = np.concatenate([[0], np.cumsum(~series.known[:, places].all(1))])
    return starts[missing[starts + length] == missing[starts + window]]
