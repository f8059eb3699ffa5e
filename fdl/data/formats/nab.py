"""The Numenta Anomaly Benchmark: series with labelled anomalies, as windows of values to forecast or to reconstruct.

data/FOLDER/NAME.csv hold timestamp,value, labels/combined_windows.json the times of the anomalies, as published. Every series is
scaled by mean and deviation of its first part, its probation, from which alone a model learns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fdl.data.formats import cells
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import at_roots, choose
from fdl.data.formats.tables import require
from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, one_line, take

LIMIT = 20.0
"""Scaled values are clipped to +- this many deviations: a sensor that fails is far enough there."""


def nab(request: Request, *, window: Count = 8, goal: Literal["forecast", "reconstruct"] = "forecast") -> Splits:
    """Load the series in nab/: rows are points, {"inputs": float32 [N, window], "targets", "value", "series", "time"}.

    Training rows are the first 80 % of each probation (15 % of a series, at most 750 points), validation its rest, and test all
    later points. "value" is the point's own, not scaled, float32 [N]; "series" and "time" are int32 [N], its series and place.
    `facts.extra` keeps "series" (names), "lengths" and "labels" (first and last point of each anomaly).

    Args:
        window: values of "inputs".
        goal: "forecast": inputs are the values before a point, and targets [N, 1] its own; "reconstruct": inputs end with the
            point, and targets are the inputs.

    Raises:
        UserError: no such folder, or a series or label that cannot be read.
    """

    def from_files(root: Path) -> Splits | None:
        folder = root / "nab"
        if not (folder / "labels" / "combined_windows.json").is_file():
            return None
        return _splits(folder, request, window, goal)

    return choose("nab", request, at_roots(request, from_files))


def _splits(folder: Path, request: Request, window: int, goal: str) -> Splits:
    labels = _labels(folder / "labels" / "combined_windows.json")
    files = sorted((folder / "data").glob("*/*.csv"))
    names = [path.relative_to(folder / "data").as_posix() for path in files]
    parts, lengths, places = [], [], []
    for number, (name, path) in enumerate(zip(names, files, strict=True)):
        times, values = read_series(path, request)
        if name not in labels:
            raise UserError(f"{path}: labels/combined_windows.json does not name {name}; get the whole benchmark")
        parts.append(rows_of(values, window, goal) | {"series": np.full(len(values), number, np.int32)})
        lengths.append(len(values))
        places.append([[_place(times, time, path) for time in pair] for pair in labels[name]])
    if not parts:
        raise UserError(f"{folder}/data holds no series FOLDER/NAME.csv; get the whole benchmark")
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    learnt = np.array([probation(length) for length in lengths])[rows["series"]]
    train = rows["time"] < 0.8 * learnt
    test = rows["time"] >= learnt
    extra = {"series": names, "lengths": lengths, "labels": places}
    facts = Facts(outputs=rows["targets"].shape[1], target="value", extra=extra)
    where = f"{len(names)} series in {folder}"
    return Splits("nab", "files", where, take(rows, train), take(rows, test), take(rows, ~train & ~test), facts)


def probation(length: int) -> int:
    """Return how many points at the start of a series of this length are for learning: 15 %, at most 750."""
    return min(int(0.15 * length), 750)


def rows_of(values: np.ndarray, window: int, goal: str) -> Arrays:
    """Cut a series of raw values [T] into its T rows without "series"; before its beginning is its first value."""
    learnt = values[: max(2, probation(len(values)))]
    scaled = np.clip((values - learnt.mean()) / (learnt.std() or 1.0), -LIMIT, LIMIT).astype(np.float32)
    padded = np.concatenate([np.repeat(scaled[:1], window), scaled])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    own = windows[1:] if goal == "reconstruct" else windows[:-1]
    targets = own if goal == "reconstruct" else scaled[:, None]
    return {
        "inputs": own.copy(),
        "targets": targets.copy(),
        "value": values.astype(np.float32),
        "time": np.arange(len(values), dtype=np.int32),
    }


def read_series(path: Path, request: Request) -> tuple[list[str], np.ndarray]:
    """Read a series: (timestamps, values float64 [T]).

    Raises:
        BadInputs: lines without a value, and `request.on_bad` is "stop".
        UserError: no such columns, or too few points.
    """
    held = cells.read(path, header="yes")
    require(held, ("timestamp", "value"))
    values, _ = held.numbers("value")
    known = ~np.isnan(values)
    bad = [
        Bad(held.where, held.place(int(row), "value"), "no number; correct the cell") for row in np.flatnonzero(~known)
    ]
    settle([*held.bad, *bad], len(held.lines) + len(held.bad), "rows", request.on_bad)
    if known.sum() < 20:
        raise UserError(f"{path} holds {known.sum()} points: at least 20 are needed; get the whole file")
    return [str(time) for time in held.column("timestamp")[known]], values[known]


def _labels(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not all(len(pair) == 2 for pairs in found.values() for pair in pairs):
            raise ValueError("a window needs two times")
        return dict(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; get the official file") from error


def _place(times: list[str], time: object, path: Path) -> int:
    stamp = str(time).split(".")[0]
    if stamp not in times:
        raise UserError(f"{path}: no point at {stamp}, which a label names; get the whole file")
    return times.index(stamp)
