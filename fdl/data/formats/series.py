"""A user's own time series: windows of the past as inputs, the steps after them as targets, split in the order of time.

Legend: N windows, W steps of a window, H of the horizon, C columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fdl.data.columns import Windows
from fdl.data.formats import cells
from fdl.data.formats.cells import Header
from fdl.data.formats.timeline import Series, calendar_of, read_series
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, Fraction, UserError, one_line, printable


def series_file(
    request: Request, *, path: str, target: tuple[str, ...] = (), window: Count = 96, horizon: Count = 24, date: str = "",
    ignore: tuple[str, ...] = (), calendar: bool = True, gaps: Literal["break", "bridge"] = "break",
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
    series = read_series(held, target, date, ignore, request.on_bad)
    extra = calendar_of(series) if calendar else {}
    inputs = np.concatenate([series.values, *(column[:, None] for column in extra.values())], axis=1).astype(np.float32)
    places = [series.names.index(name) for name in series.targets]
    targets = series.values[:, places[0] if len(places) == 1 else places].astype(np.float32)

    def rows(starts: np.ndarray) -> Arrays:
        return {"inputs": Windows(inputs, starts, window), "targets": Windows(targets, starts + window, horizon)}

    starts = _starts(series, places, window, horizon, gaps)
    parts = split_by_time(starts, len(inputs), window, horizon, validation, test)
    for part, chosen in parts.items():
        if not len(chosen):
            raise UserError(
                f"{held.where}: of {len(inputs):,} rows, {part} holds no window of {window} + {horizon} steps "
                f"({'; '.join(series.found)}): set a smaller window or horizon"
                + (", or gaps=bridge" if gaps == "break" and series.gaps.any() else "")
            )
    facts = Facts(
        numeric=(*series.names, *extra),
        target=", ".join(series.targets),
        outputs=horizon * len(places),
        extra={"window": window, "horizon": horizon},
    )
    said = [*held.found, f"forecasts {facts.target}", *series.found]
    return Splits(
        name=printable(file.stem, 60), source="files", where=f"{held.where} ({one_line('; '.join(said), 600)})",
        train=rows(parts["train"]), validation=rows(parts["validation"]) if "validation" in parts else None,
        test=rows(parts["test"]) if "test" in parts else None, facts=facts, skipped=series.skipped,
    )  # fmt: skip


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
