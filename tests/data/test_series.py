"""Users' time series: dates, gaps and missing values, and windows that keep the parts apart in time."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fdl.data.formats import dates
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.series import series_file, split_by_time
from fdl.data.splits import Request, Splits
from fdl.types import UserError

START = datetime.datetime(2024, 1, 30, 22)


def hourly(count: int, skip: tuple[int, ...] = (), step: datetime.timedelta = datetime.timedelta(hours=1)) -> list[str]:
    """Lines of a series: a date, and two columns that say the row's number."""
    rows = [row for row in range(count) if row not in skip]
    return [f"{START + row * step:%Y-%m-%d %H:%M:%S},{row},{row / 4}" for row in rows]


def load(tmp_path: Path, lines: list[str], header: str = "date,load,temperature", **options: Any) -> Splits:
    (tmp_path / "s.csv").write_text("\n".join([header, *lines]) + "\n")
    options = {"window": 4, "horizon": 2} | options
    return series_file(Request(data_dir=tmp_path, on_bad=options.pop("on_bad", "stop")), path="s.csv", **options)


def parts(splits: Splits) -> dict[str, Any]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def test_windows_are_followed_by_their_targets_and_parts_are_apart(tmp_path: Path) -> None:
    splits = load(tmp_path, hourly(50), calendar=False)
    assert splits.facts.numeric == ("load", "temperature")
    assert (splits.facts.target, splits.facts.outputs) == ("temperature", 2)
    seen: dict[str, set[float]] = {}
    for part, rows in parts(splits).items():
        inputs, targets = np.asarray(rows["inputs"]), np.asarray(rows["targets"])
        assert inputs.dtype == targets.dtype == np.float32
        assert inputs.shape[1:] == (4, 2)
        for window, ahead in zip(inputs, targets, strict=True):
            first = window[0, 0]
            np.testing.assert_array_equal(window[:, 0], first + np.arange(4))
            np.testing.assert_array_equal(ahead, (first + 4 + np.arange(2)) / 4)
        seen[part] = set((targets * 4).ravel().tolist())
    # 60, 20 and 20 % of 50 rows: every row of validation and test is a target, of training all but the first window.
    assert seen["train"] == set(range(4, 30))
    assert seen["validation"] == set(range(30, 40))
    assert seen["test"] == set(range(40, 50))


@pytest.mark.parametrize(
    ("window", "horizon", "validation", "test"), [(3, 1, 0.2, 0.2), (5, 4, 0.1, 0.3), (2, 3, 0.0, 0.25)]
)
def test_the_split_in_time_equals_a_plain_loop(window: int, horizon: int, validation: float, test: float) -> None:
    total = 41
    starts = np.arange(total - window - horizon + 1)
    first_test = total - round(test * total)
    first_validation = total - round((validation + test) * total)
    expected: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for start in starts:
        targets = range(start + window, start + window + horizon)
        owners = {"test" if t >= first_test else "validation" if t >= first_validation else "train" for t in targets}
        if len(owners) == 1:
            expected[owners.pop()].append(int(start))
    found = split_by_time(starts, total, window, horizon, validation, test)
    assert {part: rows.tolist() for part, rows in found.items()} == {
        part: rows for part, rows in expected.items() if rows
    }


def test_several_targets(tmp_path: Path) -> None:
    splits = load(tmp_path, hourly(40), target=("load", "temperature"))
    assert splits.facts.outputs == 4
    assert np.asarray(splits.train["targets"]).shape[1:] == (2, 2)
    with pytest.raises(UserError, match="no column 'lod'; the nearest is 'load'"):
        load(tmp_path, hourly(40), target=("lod",))


def test_no_window_spans_a_gap_unless_it_is_bridged(tmp_path: Path) -> None:
    splits = load(tmp_path, hourly(60, skip=(20, 21, 40)), calendar=False)
    assert "a row every hour; 2 gaps, the first after 2024-01-31 17:00:00" in splits.where
    count = 0
    for rows in parts(splits).values():
        joined = np.concatenate([np.asarray(rows["inputs"])[..., 0], np.asarray(rows["targets"]) * 4], axis=1)
        assert (np.diff(joined, axis=1) == 1).all()
        count += len(joined)
    bridged = sum(
        len(rows["targets"]) for rows in parts(load(tmp_path, hourly(60, skip=(20, 21, 40)), gaps="bridge")).values()
    )
    assert bridged == 57 - 5 - 2 * (2 - 1)  # all windows but those whose targets lie in two parts
    assert count < bridged
    with pytest.raises(UserError, match=r"train holds no window of 30 \+ 2 steps .*gaps=bridge"):
        load(tmp_path, hourly(100, skip=(20, 40)), window=30)


def test_months_of_unequal_length_are_no_gaps(tmp_path: Path) -> None:
    lines = [f"{1990 + i // 12}-{i % 12 + 1:02},{i},{i / 4}" for i in range(60)]
    splits = load(tmp_path, lines)
    assert "a row every month" in splits.where
    assert "gap" not in splits.where
    assert splits.facts.numeric[2:] == ("sine of day of year", "cosine of day of year")


def test_rows_out_of_order_are_sorted_and_twice_the_same_date_is_refused(tmp_path: Path) -> None:
    lines = hourly(40)
    shuffled = [lines[i] for i in np.random.default_rng(0).permutation(40)]
    splits, plain = load(tmp_path, shuffled), load(tmp_path, lines)
    assert "sorted by time" in splits.where
    assert "sorted by time" not in plain.where
    np.testing.assert_array_equal(np.asarray(splits.train["inputs"]), np.asarray(plain.train["inputs"]))
    with pytest.raises(UserError, match="lines 4 and 42: the date '2024-01-31 00:00:00' twice"):
        load(tmp_path, [*lines, lines[2]])


def test_missing_inputs_are_the_value_before_and_missing_targets_are_not_learnt(tmp_path: Path) -> None:
    lines = hourly(60)
    lines[0] = lines[0].split(",")[0] + ",,0"
    lines[10] = lines[10].split(",")[0] + ",NA,2.5"
    lines[20] = lines[20].split(",")[0] + ",20,?"
    splits = load(tmp_path, lines, calendar=False)
    assert (
        "1 rows at the beginning left out (values missing); 2 missing values filled with the one before" in splits.where
    )
    inputs, targets = np.asarray(splits.train["inputs"]), np.asarray(splits.train["targets"]) * 4
    assert inputs[0, 0].tolist() == [1, 0.25]
    where = np.argwhere(inputs[..., 1] == 2.5)
    assert {float(inputs[n, t, 0]) for n, t in where} == {9.0}  # row 10 of the first column is row 9's
    assert 20 not in targets
    assert {18.0, 22.0} <= set(targets.ravel().tolist())


def test_calendar_columns_are_the_cycles_longer_than_the_step(tmp_path: Path) -> None:
    splits = load(tmp_path, hourly(60))
    assert splits.facts.numeric[2:] == tuple(
        f"{wave} of {cycle}" for cycle in ("hour of day", "day of week", "day of year") for wave in ("sine", "cosine")
    )
    window = np.asarray(splits.train["inputs"])[0]
    hours = (22 + np.arange(4)) % 24
    np.testing.assert_allclose(window[:, 2], np.sin(2 * np.pi * hours / 24), atol=1e-6)
    np.testing.assert_allclose(window[:, 3], np.cos(2 * np.pi * hours / 24), atol=1e-6)
    daily = load(tmp_path, hourly(60, step=datetime.timedelta(days=1)))
    assert daily.facts.numeric[2:6] == (
        "sine of day of week", "cosine of day of week", "sine of day of year", "cosine of day of year",
    )  # fmt: skip
    week = np.asarray(daily.train["inputs"])[:10, 0, 2:4]
    np.testing.assert_allclose(week[:3], week[7:10], atol=1e-6)


def test_other_columns_are_left_out_with_a_word(tmp_path: Path) -> None:
    lines = [f"{i},{line},{'ab'[i % 2]},7" for i, line in enumerate(hourly(40))]
    splits = load(tmp_path, lines, "id,date,load,temperature,kind,unit", calendar=False)
    assert splits.facts.numeric == ("load", "temperature")
    assert "without id (an index); without kind (texts); without unit (one value)" in splits.where


def test_without_dates(tmp_path: Path) -> None:
    lines = [f"{i % 3 + 1}-{i % 12 + 1},{i}" for i in range(40)]
    with pytest.raises(UserError, match=r"no column of dates .*date=none"):
        load(tmp_path, lines, "month,sales")
    splits = load(tmp_path, lines, "month,sales", date="none", ignore=("month",))
    assert splits.facts.numeric == ("sales",)
    np.testing.assert_array_equal(np.asarray(splits.train["inputs"])[0, :, 0], np.arange(4))


def test_bad_cells_are_named_and_may_be_skipped(tmp_path: Path) -> None:
    lines = hourly(60)
    lines[3] = lines[3].replace("2024-01-31", "2024-01-32")
    lines[30] = lines[30].rsplit(",", 1)[0] + ",1_000"
    with pytest.raises(BadInputs) as caught:
        load(tmp_path, lines)
    assert [row.place for row in caught.value.rows] == ["line 5, column date", "line 32, column temperature"]
    splits = load(tmp_path, lines, on_bad="skip")
    assert "2 gaps" in splits.where
    assert len(splits.skipped) == 2


def test_a_series_too_short_for_its_windows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of 30 rows, train holds no window of 96 \+ 24 steps"):
        load(tmp_path, hourly(30), window=96, horizon=24)
    with pytest.raises(UserError, match=r"no file 'none.csv'"):
        series_file(Request(data_dir=tmp_path), path="none.csv")


WRITTEN: dict[str, Callable[[datetime.datetime], str]] = {
    "ISO": lambda t: f"{t:%Y-%m-%d %H:%M:%S}", "ISO with T and Z": lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}",
    "ISO with a zone": lambda t: f"{t + datetime.timedelta(hours=2):%Y-%m-%dT%H:%M:%S+02:00}",
    "slashes": lambda t: f"{t:%Y/%m/%d %H:%M}", "compact": lambda t: f"{t:%Y%m%d %H:%M}",
    "German": lambda t: f"{t:%d.%m.%Y %H:%M}",
    "American": lambda t: f"{t:%m/%d/%Y %I:%M %p}", "British": lambda t: f"{t:%d/%m/%Y %H:%M}",
    "day and month's name": lambda t: f"{t:%d %b %Y %H:%M}", "month's name and day": lambda t: f"{t:%B %d, %Y %H:%M}",
}  # fmt: skip


@pytest.mark.parametrize("form", WRITTEN)
def test_dates_as_people_write_them(tmp_path: Path, form: str) -> None:
    times = [START + datetime.timedelta(hours=7 * i) for i in range(60)]
    found = {name: dates.parse([WRITTEN[form](t) for t in times], name) for name in dates.FORMS}
    (parsed,) = (column for column in found.values() if not np.isnat(column).any())
    assert parsed.astype(object).tolist() == times
    splits = load(tmp_path, [f'"{WRITTEN[form](t)}",{i},{i / 4}' for i, t in enumerate(times)])
    assert "a row every 7 hours" in splits.where


def test_a_date_that_may_be_two_is_asked_for(tmp_path: Path) -> None:
    lines = [f"0{i % 9 + 1}/0{i // 9 + 1}/2024,{i},{i / 4}" for i in range(60)]
    with pytest.raises(UserError, match="may be day/month/year or month/day/year: write them as YYYY-MM-DD"):
        load(tmp_path, lines)


@pytest.mark.parametrize(
    "cell", ["2024-02-30", "2023-02-29", "2024-13-01", "2024-01-01 25:00", "1-01", "12:30", "x", ""]
)
def test_what_is_no_date(cell: str) -> None:
    assert all(np.isnat(dates.parse([cell], form)).all() for form in dates.FORMS)


def test_real_series(data_dir: Path) -> None:
    request = Request(data_dir=data_dir)
    ett = series_file(request, path="time-series/ETTh1.csv", calendar=False)
    raw = np.genfromtxt(data_dir / "time-series" / "ETTh1.csv", delimiter=",", skip_header=1, usecols=range(1, 8))
    np.testing.assert_array_equal(np.asarray(ett.train["inputs"])[0], raw[:96].astype(np.float32))
    np.testing.assert_array_equal(np.asarray(ett.test["targets"])[-1], raw[-24:, 6].astype(np.float32))  # type: ignore[index]
    assert len(ett.train["targets"]) == 17_420 - round(0.4 * 17_420) - 96 - 24 + 1
    temperatures = series_file(request, path="time-series/daily-min-temperatures.csv")
    assert "2 gaps, the first after 1984-12-30" in temperatures.where  # the 31st of December of leap years is not there
    passengers = series_file(request, path="time-series/airline-passengers.csv", window=12, horizon=6)
    assert "a row every month" in passengers.where
