"""Stand-ins for public time series: seasons and autoregressive noise, as tables of text with a header."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEED = 0
Drawn = Callable[[], list[list[str]]]


def loads(count: int = 17_420) -> list[list[str]]:
    """Draw seven hourly columns under ETTh1's names: days, weeks and years, and a slow random walk around zero."""
    rng = np.random.default_rng(SEED)
    hours = np.arange(count)
    values = []
    for column in range(7):
        seasons = sum(
            rng.uniform(0.5, 3) * np.sin(2 * np.pi * (hours / cycle + rng.random())) for cycle in (24, 168, 8766)
        )
        values.append(10 - column + seasons + _autoregression(rng, count, 0.97, 0.4))
    times = np.datetime64("2016-07-01T00:00:00") + hours.astype("timedelta64[h]")
    dates = [str(time).replace("T", " ") for time in times]
    header = ["date", "HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    return [
        header,
        *([date, *(f"{value:.4f}" for value in row)] for date, row in zip(dates, np.stack(values, 1), strict=True)),
    ]


def temperatures(count: int = 3650) -> list[list[str]]:
    """Draw daily temperatures in degrees: a year's wave and persistent weather."""
    rng = np.random.default_rng(SEED)
    days = np.datetime64("1981-01-01") + np.arange(count)
    year = 2 * np.pi * (days.astype(np.int64) % 365.2425) / 365.2425
    values = 11 + 4 * np.cos(year) + _autoregression(rng, count, 0.6, 2.2)
    return [["Date", "Temp"], *([str(day), f"{value:.1f}"] for day, value in zip(days, values, strict=True))]


def _autoregression(rng: np.random.Generator, count: int, factor: float, deviation: float) -> np.ndarray:
    """Draw x_t = factor x_{t-1} + noise."""
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -factor], rng.normal(0, deviation, count))
