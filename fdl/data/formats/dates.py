"""Dates and times as people write them, read as seconds; one form for a whole column."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_CLOCK = r"(?:[T ]+(?P<h>\d{1,2}):(?P<min>\d{2})(?::(?P<s>\d{2})(?:[.,]\d+)?)?(?:\s*(?P<half>[AP]M))?)?"
_ZONE = r"\s*(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
FORMS = {
    "ISO 8601": r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})(?:[-/.](?P<d>\d{1,2})" + _CLOCK + _ZONE + ")?",
    "YYYYMMDD": r"(?P<y>[12]\d{3})(?P<m>\d{2})(?P<d>\d{2})" + _CLOCK,
    "day/month/year": r"(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{4})" + _CLOCK,
    "month/day/year": r"(?P<m>\d{1,2})[-/.](?P<d>\d{1,2})[-/.](?P<y>\d{4})" + _CLOCK,
    "day month-name year": r"(?P<d>\d{1,2})[- ](?P<name>[A-Z]{3,9})[- ,]+(?P<y>\d{4})" + _CLOCK,
    "month-name day, year": r"(?P<name>[A-Z]{3,9})[- ](?P<d>\d{1,2})[ ,]+(?P<y>\d{4})" + _CLOCK,
    "month-name year": r"(?P<name>[A-Z]{3,9})[- ](?P<y>\d{4})",
    "year": r"(?P<y>[12]\d{3})",
}
"""Name -> pattern."""

BARE_NUMBERS = frozenset({"YYYYMMDD", "year"})
"""Forms that a number may have by accident."""


def parse(column: Sequence[str], form: str) -> np.ndarray:
    """Return datetime64[s] [N] of cells written in one of `FORMS`; NaT where a cell is not, or is no day of the calendar.

    What is left out (the day of a month, the time of a day) is its beginning; a zone is subtracted, giving UTC.
    """
    pattern = re.compile(FORMS[form], re.IGNORECASE | re.ASCII)
    fields = np.array([_fields(pattern.fullmatch(cell.strip())) for cell in column], np.int64).reshape(-1, 7)
    year, month, day, hour, minute, second, zone = fields.T
    months = np.clip((year - 1970) * 12 + month - 1, -(2**31), 2**31).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    good = (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    good &= (hour < 24) & (minute < 60) & (second < 61)
    times = days.astype("datetime64[s]") + (hour * 3600 + minute * 60 + second - zone)
    return np.where(good, times, np.datetime64("NaT", "s"))


def _fields(match: re.Match[str] | None) -> tuple[int, ...]:
    if match is None:
        return (1970, 0, 0, 0, 0, 0, 0)
    held = match.groupdict()
    month = held.get("m") or (
        _MONTHS.index(held["name"][:3].lower()) + 1 if held.get("name", "")[:3].lower() in _MONTHS else 0
    )
    if "name" not in held and "m" not in held:
        month = 1
    hour = int(held.get("h") or 0)
    if held.get("half"):
        hour = hour % 12 + 12 * (held["half"].upper() == "PM")
    zone, sign = held.get("zone") or "", 1
    digits = zone.strip("+-").replace(":", "")
    sign = -1 if zone.startswith("-") else 1
    shift = sign * (int(digits[:2]) * 3600 + int(digits[2:]) * 60) if digits.isdigit() else 0
    return (
        int(held["y"]), int(month), int(held.get("d") or 1), hour, int(held.get("min") or 0), int(held.get("s") or 0), shift,
    )  # fmt: skip
