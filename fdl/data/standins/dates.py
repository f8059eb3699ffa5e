"""Dates as people write them, and as ISO 8601: generated pairs for a small translation task."""

from __future__ import annotations

import datetime

import numpy as np

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST, _LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)


def written(date: datetime.date, form: int) -> str:
    """Write a date in one of the `FORMS` ways, in lower case."""
    month, short, day, year = MONTHS[date.month - 1], MONTHS[date.month - 1][:3], date.day, date.year
    weekday = DAYS[date.weekday()]
    return (
        f"{day} {month} {year}", f"{day} {short} {year}", f"{month} {day}, {year}", f"{short} {day} {year}",
        f"{weekday}, {month} {day}, {year}", f"{weekday} {day} {short} {year}", f"{day:02}/{date.month:02}/{year}",
        f"{day}.{date.month}.{year}", f"{day:02}.{date.month:02}.{year % 100:02}", f"{day} {month} {year % 100:02}",
        f"{year} {month} {day}", f"{weekday} the {day} of {month}, {year}",
    )[form]  # fmt: skip


FORMS = 12


def pairs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generate (written dates, ISO dates), object [N] each, no written date twice.

    Two digits of a year mean 1950 to 2049, as the days drawn lie in these years.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        date = _FIRST + datetime.timedelta(days=int(rng.integers((_LAST - _FIRST).days + 1)))
        found.setdefault(written(date, int(rng.integers(FORMS))), date.isoformat())
    return np.array(list(found), object), np.array(list(found.values()), object)
