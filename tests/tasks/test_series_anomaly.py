"""The Numenta benchmark: its scoring rule, its own baseline, the rows made of its files, and errors turned into alarms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fdl.data import Request
from fdl.data.formats.nab import nab, probation, rows_of
from fdl.tasks import SeriesAnomalies
from fdl.tasks.nab_score import nab_score, score_points
from fdl.tasks.series_anomaly import keep_first, rolling_likelihood, windowed_gaussian
from fdl.types import UserError

RNG = np.random.default_rng(3)


def alarms(length: int, *places: int) -> np.ndarray:
    scores = np.zeros(length)
    scores[list(places)] = 1
    return scores


def sigmoid(x: float) -> float:
    return 2 / (1 + math.exp(5 * x)) - 1


@pytest.mark.parametrize(
    ("places", "raw"),
    [
        ((), -1.0),
        ((400,), 1.0),  # at the window's first point
        ((400, 450, 499), 1.0),  # the first alarm counts, once
        ((450,), sigmoid(-0.5) / sigmoid(-1)),
        ((400, 999), 1 - 0.11),  # far behind the window
        ((400, 510), 1 + 0.11 * sigmoid(11 / 99)),  # just behind it
        ((400, 300), 1 - 0.11),  # before any window
        ((400, 149), 1.0),  # in the probation: not counted
    ],
)
def test_alarms_count_as_the_benchmarks_rule_says(places: tuple[int, ...], raw: float) -> None:
    """The equations of Lavin and Ahmad 2015."""
    points = score_points(1000, [(400, 499)])
    chosen = [place for place in places if place >= probation(1000)]
    inside = [points.values[place] for place in chosen if points.window[place] == 0]
    total = max(inside, default=-1.0) + sum(points.values[place] for place in chosen if points.window[place] < 0)
    assert total == pytest.approx(raw)


def test_the_score_is_0_without_alarms_and_100_with_one_at_every_windows_start() -> None:
    windows = [[(400, 499), (700, 720)], []]
    assert nab_score([alarms(1000), alarms(500)], windows)[0] == pytest.approx(0)
    best, threshold = nab_score([alarms(1000, 400, 700), alarms(500)], windows)
    assert (best, threshold) == (pytest.approx(100), 1)
    both = [alarms(1000, 400) + 0.5 * alarms(1000, 700), 0.5 * alarms(500, 200, 300, 400)]
    assert nab_score(both, windows) == (
        pytest.approx(50 * (2 - 3 * 0.11 + 2) / 2),
        0.5,
    )  # three false alarms are worth the window
    dear = [alarms(1000, 400) + 0.5 * alarms(1000, 720), 0.5 * alarms(500, *range(200, 250))]
    assert nab_score(dear, windows) == (pytest.approx(50), 1)  # fifty are not


def test_the_published_score_of_the_benchmarks_own_baseline(data_dir: Path) -> None:
    """Over all 58 series the rule gives the published 39.65; of the 25 that are here it gives 32.1."""
    if not (data_dir / "nab").is_dir():
        pytest.skip("no real data: set FDL_DATA_DIR")
    splits = nab(Request(data_dir=data_dir, offline=True))
    assert len(splits.facts.extra["series"]) == 25
    assert sum(map(len, splits.facts.extra["labels"])) == 46
    assert sum(splits.facts.extra["lengths"]) == 129_577
    found = SeriesAnomalies().baselines(splits)
    assert found["windowed Gaussian"]["nab"] == pytest.approx(32.1, abs=0.2)


def test_the_windowed_gaussian_is_the_loop_it_stands_for() -> None:
    values, window, step = RNG.normal(size=400), 100, 20
    data: list[float] = []
    waiting: list[float] = []
    mean, deviation, expected = 0.0, 1.0, []
    for place, value in enumerate(values):
        tail = 0.5 * math.erfc(abs(value - mean) / (deviation or 1e-6) / math.sqrt(2))
        expected.append(1 - tail if place else 0.0)
        if len(data) < window:
            data.append(value)
        else:
            waiting.append(value)
            if len(waiting) < step:
                continue
            data, waiting = data[step:] + waiting, []
        mean, deviation = float(np.mean(data)), float(np.std(data))
    np.testing.assert_allclose(windowed_gaussian(values, window, step), expected, atol=1e-12)


def test_errors_are_compared_with_all_before_them() -> None:
    errors = RNG.random(300)
    errors[250] = 30
    found = rolling_likelihood(errors, history=120)
    assert not found[:100].any()
    past = errors[250 + 1 - 120 : 251]
    assert found[250] == pytest.approx((30 - past.mean()) / past.std())
    assert keep_first(np.array([1.0, 3, 2, 3, 4, 0, 0, 1]), 3).tolist() == [1, 3, 0, 0, 4, 0, 0, 0]


def folder(tmp_path: Path, lines: list[str] | None = None, label: str = "2020-01-01 00:00:40.000000") -> Path:
    (tmp_path / "nab/data/real").mkdir(parents=True)
    (tmp_path / "nab/labels").mkdir()
    held = [f"2020-01-01 00:00:{second:02d},{second % 7}" for second in range(60)] if lines is None else lines
    (tmp_path / "nab/data/real/one.csv").write_text("\n".join(["timestamp,value", *held]) + "\n")
    (tmp_path / "nab/labels/combined_windows.json").write_text(json.dumps({"real/one.csv": [[label, label]]}))
    return tmp_path


def test_rows_are_windows_before_their_point_and_no_test_point_is_learnt_from(tmp_path: Path) -> None:
    splits = nab(Request(data_dir=folder(tmp_path)), window=3)
    assert splits.test is not None
    assert splits.validation is not None
    assert [part["time"].tolist() for part in (splits.train, splits.validation)] == [list(range(8)), [8]]
    assert splits.test["time"].tolist() == list(range(9, 60))
    assert splits.facts.extra["labels"] == [[[40, 40]]]
    first = np.array([second % 7 for second in range(9)], float)
    scaled = (np.arange(60) % 7 - first.mean()) / first.std()
    np.testing.assert_allclose(splits.test["inputs"][5], scaled[11:14], rtol=1e-5)
    np.testing.assert_allclose(splits.test["targets"][5], scaled[14:15], rtol=1e-5)
    own = rows_of(np.arange(60.0) % 7, 3, "reconstruct")
    np.testing.assert_allclose(own["inputs"][20], scaled[18:21], rtol=1e-5)
    assert own["targets"].shape == (60, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lines": ["2020-01-01 00:00:00,one"] * 40}, "line 2, column value"),
        ({"lines": ["2020-01-01 00:00:00,1"] * 3}, "at least 20 are needed"),
        ({"label": "2021-01-01 00:00:00"}, "no point at 2021-01-01 00:00:00"),
    ],
)
def test_a_damaged_benchmark_is_one_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        nab(Request(data_dir=folder(tmp_path, **change)))  # type: ignore[arg-type]
