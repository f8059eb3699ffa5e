"""From a table's cells to one time series: which column has the dates, rows in order, gaps found, missing values filled.

Legend: T rows of the series, C columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from fdl.data.formats import dates, roles
from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.cells import Cells, why_wrong
from fdl.data.formats.tables import in_order
from fdl.data.splits import OnBad
from fdl.types import UserError, one_line, printable

TIME_NAMES = frozenset({"date", "time", "datetime", "timestamp", "ds", "day", "month", "quarter", "year"})
UNITS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_629_746,
    "year": 31_556_952,
}
CYCLES = {"hour of day": 86_400, "day of week": 604_800, "day of year": 31_556_952}
"""Calendar column -> its cycle in seconds."""
LONGER = 1.5
"""A step so many times longer than the usual one is a gap; a month of 31 days after one of 28 is none."""

_SAMPLE = 200  # cells that decide which column has the dates


@dataclasses.dataclass(frozen=True)
class Series:
    """A series in the order of time.

    Attributes:
        times: int64 [T], seconds since 1970; the numbers of the rows where there are no dates.
        values: float64 [T, C], missing ones filled with the value before.
        known: bool [T, C], False for those.
        names: of the columns.
        targets: of the columns to forecast.
        step: the usual distance of two rows in seconds; 0 without dates.
        date: the column of dates; "none" without.
        found: what a user should know of how it was read.
        skipped: bad rows left out.
    """

    times: np.ndarray
    values: np.ndarray
    known: np.ndarray
    names: tuple[str, ...]
    targets: tuple[str, ...]
    step: float = 0.0
    date: str = "none"
    found: tuple[str, ...] = ()
    skipped: tuple[Bad, ...] = ()

    @property
    def gaps(self) -> np.ndarray:
        """Boolean [T]: the row comes later than a step after the one before it."""
        late = np.diff(self.times, prepend=self.times[:1]) > LONGER * self.step
        return late & (self.step > 0)

    def first(self, count: int) -> Series:
        """Return the series up to its row `count`."""
        part = slice(count)
        return dataclasses.replace(self, times=self.times[part], values=self.values[part], known=self.known[part])


def read_series(
    held: Cells, target: tuple[str, ...] = (), date: str = "", ignore: tuple[str, ...] = (), on_bad: OnBad = "stop",
    names: tuple[str, ...] = (),
) -> Series:  # fmt: skip
    """Read the numeric columns of a table as a series.

    Args:
        names: exactly these columns, in this order; default: every numeric one.
        target: the columns to forecast; default: the last numeric one.
        date: the column of dates; default: one that holds dates; "none": the rows are in order and a step apart.
        ignore: columns to leave out; so are texts, indices and columns of one value.

    Raises:
        BadInputs: cells that are no dates or no numbers, and `on_bad` is "stop".
        UserError: no such column, no dates, the same date twice, no numbers, or a column without any.
    """
    column, form = ("", "") if date == "none" else _date_column(held, date, ignore)
    found = {} if names else roles.look_at(held, (*ignore, column))
    numeric = list(names) or [name for name in held.names if found.get(name) == "numeric" or name in target]
    for name in (*names, *target):
        roles.require_column(held, name)
    if not numeric:
        raise UserError(f"{held.where} has no column of numbers to forecast; name one in target=")
    said = [
        f"without {name} ({'texts' if why == 'categorical' else why})"
        for name, why in found.items()
        if name not in numeric
    ]
    times = (
        dates.parse(held.column(column).tolist(), form)
        if column
        else np.arange(len(held.lines)).astype("datetime64[s]")
    )
    values, bad = _values(held, numeric, times, column, form)
    skipped = settle(in_order([*held.bad, *bad.values()]), len(held.lines) + len(held.bad), "rows", on_bad)

    good = np.setdiff1d(np.arange(len(times)), list(bad))
    order = good[np.argsort(times[good], kind="stable")]
    if (order != good).any():
        said.append("sorted by time")
    seconds = times[order].astype(np.int64)
    for place in np.flatnonzero(np.diff(seconds) == 0)[:1]:
        raise UserError(
            f"{held.where}, lines {held.lines[order[place]]} and {held.lines[order[place + 1]]}: the date "
            f"{printable(held.cell(order[place], column), 40)!r} twice; keep one row for each date (one series in a file)"
        )
    series = Series(
        seconds, values[order], ~np.isnan(values[order]), tuple(numeric), target or tuple(numeric[-1:]),
        float(np.median(np.diff(seconds))) if column and len(seconds) > 1 else 0.0, column or "none", tuple(said), skipped,
    )  # fmt: skip
    return _described(_filled(series, held.where))


def calendar_of(series: Series, cycles: Collection[str] = CYCLES) -> dict[str, np.ndarray]:
    """Compute name -> float64 [T]: sine and cosine of those cycles in which at least two of the series' steps fit.

    The times are taken as they are written (UTC where they name a zone); the week begins on Thursday, as 1970 did.
    """
    columns: dict[str, np.ndarray] = {}
    for name, cycle in CYCLES.items():
        if name in cycles and 0 < 2 * series.step <= cycle:
            angle = 2 * np.pi * (series.times % cycle) / cycle
            columns |= {f"sine of {name}": np.sin(angle), f"cosine of {name}": np.cos(angle)}
    return columns


def seasons_of(series: Series) -> dict[str, int]:
    """Return "a day before", "a week before", "a year before" -> that many of the series' steps, at least two."""
    cycles = {"day": CYCLES["hour of day"], "week": CYCLES["day of week"], "year": CYCLES["day of year"]}
    found = {f"a {name} before": round(cycle / series.step) for name, cycle in cycles.items() if series.step}
    return {name: steps for name, steps in found.items() if steps >= 2}


def times_after(series: Series, count: int) -> np.ndarray:
    """Return the times of the next `count` rows, datetime64[s]; of months and years, the same day of later months."""
    last, ahead = np.datetime64(int(series.times[-1]), "s"), np.arange(1, count + 1)
    months = round(series.step / UNITS["month"])
    if not months or abs(series.step / UNITS["month"] - months) > 0.05:
        return last + (ahead * round(series.step)).astype("timedelta64[s]")
    month = last.astype("datetime64[M]")
    later = month + months * ahead
    day = np.minimum(last - month, (later + 1).astype("datetime64[s]") - later - np.timedelta64(1, "D"))
    return later.astype("datetime64[s]") + day


def _date_column(held: Cells, date: str, ignore: tuple[str, ...]) -> tuple[str, str]:
    """Find (the column of dates, their form): the one named, else the first whose cells are dates.

    Raises:
        UserError: there is none, or its dates can be read in two ways.
    """
    if date:
        roles.require_column(held, date)
    for name in [date] if date else [name for name in held.names if name not in ignore]:
        cells = held.column(name)[:_SAMPLE].tolist()
        likely = name == date or name.lower() in TIME_NAMES or name == held.names[0]
        dated = {form: int((~np.isnat(dates.parse(cells, form))).sum()) for form in dates.FORMS}
        dated = {form: count for form, count in dated.items() if likely or form not in dates.BARE_NUMBERS}
        most = max(dated.values())
        if 2 * most > len(cells):
            return name, _form(held, name, [form for form, count in dated.items() if count == most])
    raise UserError(
        f"{held.where} has no column of dates such as 2024-01-31 or 2024-01-31 13:00"
        + (f": {date!r} holds {printable(held.cell(0, date), 40)!r}" if date and len(held.lines) else "")
        + "; name it in date=, or set date=none for rows in order and a step apart"
    )


def _form(held: Cells, name: str, forms: list[str]) -> str:
    """Choose among several forms (is 01/02/2024 in January?) the one in which the most cells are dates."""
    counts = (
        {form: int((~np.isnat(dates.parse(held.column(name).tolist(), form))).sum()) for form in forms}
        if forms[1:]
        else {}
    )
    best = [form for form in forms if not counts or counts[form] == max(counts.values())]
    if len(best) > 1:
        raise UserError(
            f"{held.where}, column {name}: {printable(held.cell(0, name), 40)!r} and all the others may be {' or '.join(best)}: "
            "write them as YYYY-MM-DD"
        )
    return best[0]


def _values(
    held: Cells, names: list[str], times: np.ndarray, column: str, form: str
) -> tuple[np.ndarray, dict[int, Bad]]:
    """Return (float64 [T, C], row -> its bad cell)."""
    parts = [held.numbers(name) for name in names]
    bad: dict[int, Bad] = {}
    for row in np.flatnonzero(np.isnat(times)):
        cell = printable(held.cell(int(row), column), 40)
        bad[int(row)] = Bad(held.where, held.place(int(row), column), f"{cell!r} is no date ({form}); correct it")
    for name, (_, wrong) in zip(names, parts, strict=True):
        for row in np.flatnonzero(wrong):
            reason = why_wrong(held.cell(int(row), name), held.decimal)
            bad.setdefault(int(row), Bad(held.where, held.place(int(row), name), reason))
    return np.stack([values for values, _ in parts], axis=1), bad


def _filled(series: Series, where: str) -> Series:
    """Fill each missing value with the last one known; rows before every column has one are left out."""
    row = np.where(series.known, np.arange(len(series.times))[:, None], -1)
    last = np.maximum.accumulate(row, axis=0)
    begun = np.flatnonzero((last >= 0).all(1))
    if not len(begun):
        raise UserError(
            f"{where}: {one_line(', '.join(series.names))} have no row in which all are known; leave some out (ignore=)"
        )
    first, missing = begun[0], int((~series.known[begun[0] :]).sum())
    said = [f"{first:,} rows at the beginning left out (values missing)"] * bool(first)
    said += [f"{missing:,} missing values filled with the one before"] * bool(missing)
    values = np.take_along_axis(series.values, np.maximum(last, 0), axis=0)
    return dataclasses.replace(
        series,
        times=series.times[first:],
        values=values[first:],
        known=series.known[first:],
        found=(*series.found, *said),
    )


def _described(series: Series) -> Series:
    """Describe the series, with its step and its gaps."""
    if not series.step:
        return series
    name, length = min(UNITS.items(), key=lambda unit: abs(np.log(unit[1] / series.step)))
    count = series.step / length
    if abs(count - round(count)) > 0.05:  # 90 minutes
        name, length = max(
            (unit for unit in UNITS.items() if unit[1] <= series.step), key=lambda unit: unit[1], default=("second", 1)
        )
        count = series.step / length
    said = [f"a row every {name}" if abs(count - 1) < 0.05 else f"a row every {count:.3g} {name}s"]
    places = np.flatnonzero(series.gaps)
    if len(places):
        at = np.datetime64(int(series.times[places[0] - 1]), "s")
        said.append(f"{len(places):,} gaps, the first after {str(at).replace('T', ' ').removesuffix(' 00:00:00')}")
    return dataclasses.replace(series, found=(*said, *series.found))
