"""Public time series, cut as their benchmarks cut them: ETTh1 and the daily minimum temperatures of Melbourne."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdl.data.formats import cells, download
from fdl.data.formats.forms import at_roots, choose, first
from fdl.data.formats.series import series_of_cells
from fdl.data.splits import Request, Splits
from fdl.data.standins import seasons
from fdl.types import Count, Fraction

_ETTH1 = download.Remote(
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv",
    2_589_657,
    "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
)
_TEMPERATURES = download.Remote(
    "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/daily-min-temperatures.csv",
    67_921,
    "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
)
LOADS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
"""ETTh1's columns: useful and useless loads, high, middle and low; the oil's temperature."""


def etth1(request: Request, *, window: Count = 336, horizon: Count = 96, target: tuple[str, ...] = LOADS) -> Splits:
    """Load ETTh1 (Zhou et al. 2021): a power transformer's six loads and oil temperature, hour by hour for two years.

    The benchmark's cut: 8,640 rows for training, 2,880 for validation and 2,880 for testing, the last 3,020 unused; windows of
    the past of `window` hours, targets [N, horizon, columns] of the next `horizon`. Every one of the 2,785 test windows (at a
    horizon of 96) counts.

    Raises:
        UserError: the form asked for is not there, or is damaged; so for every source.
    """
    cut = {"target": target, "window": window, "horizon": horizon, "rows": 14_400, "validation": 0.2, "test": 0.2}
    return _series("etth1", _ETTH1, "ETTh1.csv", seasons.loads, request, **cut)


def daily_min_temperatures(
    request: Request, *, window: Count = 28, horizon: Count = 1, validation: Fraction = 0.1
) -> Splits:
    """Load the daily minimum temperatures of Melbourne, 1981 to 1990 (Australian Bureau of Meteorology): 3,650 days.

    The last 1,150 are the test part, and a share `validation` of all rows before them the validation part. The 31st of December
    of leap years is missing, and is passed over.
    """
    cut = {
        "target": (),
        "window": window,
        "horizon": horizon,
        "gaps": "bridge",
        "cycles": ("day of year",),  # the weather knows no weeks
        "validation": validation,
        "test": 1150 / 3650,
    }
    return _series(
        "daily_min_temperatures", _TEMPERATURES, "daily-min-temperatures.csv", seasons.temperatures, request, **cut
    )


def _series(name: str, remote: download.Remote, file: str, draw: seasons.Drawn, request: Request, **cut: Any) -> Splits:
    def read(source: str, path: Path) -> Splits:
        return series_of_cells(cells.read(path), name, source, request.on_bad, **cut)

    def from_files(root: Path) -> Splits | None:
        path = first(
            root, f"time-series/{file}", f"{name.replace('_', '-')}/{file}", f"{name}/{file}", f"ETT-small/{file}"
        )
        return read("files", path) if path else None

    def fetched() -> Splits | None:
        path = download.cached(remote, file, request.offline)
        return read("download", path) if path else None

    def made() -> Splits:
        where = f"a stand-in, not the real series: drawn by {draw.__module__}, seed {seasons.SEED}"
        table = cells.of_rows(draw(), where)
        return series_of_cells(table, f"{name}-standin", "builtin", request.on_bad, standin=True, **cut)

    return choose(name, request, [*at_roots(request, from_files), ("files", fetched), ("builtin", made)])
