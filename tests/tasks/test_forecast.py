"""Forecasts: the scaler, the baselines, the nets' equations, and what is written for the future of a user's file."""

from __future__ import annotations

import csv
import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fdl.data import Data, Request, ops, pipeline, sources
from fdl.data.formats.series import read_end, series_file
from fdl.data.formats.timeline import Series, times_after
from fdl.data.series_ops import ScaleSeries
from fdl.data.splits import Splits
from fdl.models import LinearForecast, RecurrentForecast, SegRNN
from fdl.tasks import Forecast, View, forecast_baselines
from fdl.tasks.panels import forecast as panels
from fdl.types import UserError

START = datetime.datetime(2024, 1, 1)


def write(path: Path, count: int, hours: int = 1, skip: tuple[int, ...] = (), noise: float = 0.3) -> np.ndarray:
    """A series with a daily wave; returns its values [count, 2]."""
    rng = np.random.default_rng(0)
    steps = np.arange(count)
    values = np.stack([np.sin(2 * np.pi * steps / 24), 5 + np.cos(2 * np.pi * steps / 24)], 1)
    values = (values + rng.normal(0, noise, values.shape)).round(4)
    rows = [
        f"{START + datetime.timedelta(hours=hours * i)},{a},{b}"
        for i, (a, b) in enumerate(values.tolist())
        if i not in skip
    ]
    path.write_text("\n".join(["date,load,heat", *rows]) + "\n")
    return values


def load(tmp_path: Path, count: int = 400, **options: Any) -> tuple[Splits, np.ndarray]:
    values = write(tmp_path / "s.csv", count)
    options = {"window": 30, "horizon": 6, "target": ("heat", "load")} | options
    return series_file(Request(data_dir=tmp_path), path="s.csv", **options), values


def test_the_scaler_is_that_of_the_training_part_with_every_step_once(tmp_path: Path) -> None:
    splits, values = load(tmp_path, calendar=False)
    part = values[:240]  # 60 % of the rows
    statistics = ScaleSeries().fit(splits.train)
    np.testing.assert_allclose(statistics["mean"], part.mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / statistics["factor"], part.std(0), rtol=1e-6)
    assert statistics["target_mean"].shape == (6, 2)
    np.testing.assert_allclose(statistics["target_mean"][3], part.mean(0)[::-1], rtol=1e-6)
    batch = {"inputs": np.asarray(splits.test["inputs"])[:3]}  # type: ignore[index]
    found = ScaleSeries().transform(batch, None, statistics)
    np.testing.assert_allclose(found["inputs"], (batch["inputs"] - part.mean(0)) / part.std(0), rtol=1e-3, atol=1e-4)
    assert found["target_deviation"].shape == (3, 6, 2)


def test_baselines_equal_plain_loops(tmp_path: Path) -> None:
    splits, values = load(tmp_path)
    found = forecast_baselines.forecasts(splits, lags=3, harmonics=1)
    assert list(found) == ["last value", "a day before", "a week before", "ridge", "AR(3) and seasons"]
    heat = values[:, ::-1].astype(np.float32).astype(np.float64)
    begin = 320  # of the test part
    for row in (0, 17, -1):
        first = begin + (row if row >= 0 else len(splits.test["targets"]) - 1)  # type: ignore[index]
        np.testing.assert_allclose(found["last value"][row], np.tile(heat[first - 1], (6, 1)))
        np.testing.assert_allclose(found["a day before"][row], heat[first - 24 : first - 18])
    # Ridge in closed form: (X'X + a I) W = X'Y on windows less their last value, in training deviations.
    scaled = (heat - heat[:240].mean(0)) / heat[:240].std(0)
    x, y = [], []
    for start in range(240 - 36 + 1):
        for column in (0, 1):
            window = scaled[start : start + 36, column] - scaled[start + 29, column]
            x.append(window[:30])
            y.append(window[30:])
    known, wanted = np.array(x), np.array(y)
    weights = np.linalg.solve(known.T @ known + forecast_baselines.RIDGE_ALPHA * np.eye(30), known.T @ wanted)
    last = scaled[begin - 1, 0]
    expected = ((scaled[begin - 30 : begin, 0] - last) @ weights + last) * heat[:240, 0].std() + heat[:240, 0].mean()
    np.testing.assert_allclose(found["ridge"][0, :, 0], expected, rtol=1e-3, atol=1e-3)


def test_the_autoregression_equals_least_squares_and_its_iteration(tmp_path: Path) -> None:
    splits, values = load(tmp_path, target=("load",), calendar=False)
    found = forecast_baselines.forecasts(splits, lags=2, harmonics=2)["AR(2)"]
    y = values[:, 0].astype(np.float32).astype(np.float64)
    design = np.stack([np.ones(238), y[1:239], y[:238]], 1)
    constant, first, second = np.linalg.lstsq(design, y[2:240], rcond=None)[0]
    known = list(y[:320])
    for _ in range(6):
        known.append(constant + first * known[-1] + second * known[-2])
    np.testing.assert_allclose(found[0], known[320:], rtol=1e-5)


def test_data_that_are_no_windows_have_no_baselines() -> None:
    rows = {"inputs": np.zeros((4, 3, 1), np.float32), "targets": np.zeros((4, 1), np.float32)}
    assert forecast_baselines.forecasts(Splits("x", "builtin", "here", rows, rows), 2, 1) == {}


def test_etth1_is_cut_as_the_benchmark_cuts_it(data_dir: Path) -> None:
    splits = sources.etth1(Request(data_dir=data_dir))
    assert [len(rows["targets"]) for rows in (splits.train, splits.validation, splits.test)] == [8209, 2785, 2785]  # type: ignore[index]
    found = Forecast(scaled=True, lags=1).baselines(splits)
    assert found["ridge"]["mse"] == pytest.approx(0.3696, abs=2e-4)
    assert found["ridge"]["mae"] == pytest.approx(0.3912, abs=2e-4)
    assert found["last value"]["mse"] == pytest.approx(1.294, abs=1e-3)


def test_the_temperatures_are_cut_at_row_2500(data_dir: Path) -> None:
    splits = sources.daily_min_temperatures(Request(data_dir=data_dir), validation=0.0)
    assert len(splits.test["targets"]) == 1150  # type: ignore[index]
    found = Forecast().baselines(splits)["AR(7) and seasons"]
    assert (found["mse"], found["mae"]) == pytest.approx((5.04, 1.78), abs=0.01)


def test_the_stand_ins_have_the_real_series_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    request = Request(source="builtin", data_dir=tmp_path, offline=True)
    ett, days = sources.etth1(request), sources.daily_min_temperatures(request)
    assert (ett.standin, ett.name, len(ett.test["targets"])) == (True, "etth1-standin", 2785)  # type: ignore[index]
    assert ett.facts.target.split(", ")[-1] == "OT"
    assert (days.standin, len(days.test["targets"])) == (True, 1150)  # type: ignore[index]


@pytest.mark.parametrize(
    "model",
    [
        LinearForecast(targets=(2, 0), horizon=6),
        SegRNN(targets=(2, 0), horizon=6, segment=3, width=8),
        RecurrentForecast(targets=(2, 0), horizon=6, width=5, relative=True, highway=4),
    ],
    ids=lambda model: type(model).__name__,
)
def test_forecasts_move_with_the_level_of_their_own_column(model: Any) -> None:
    """All three subtract the window's last value: a constant added to a target column is added to its forecast alone."""
    x = np.random.default_rng(0).normal(size=(4, 12, 3)).astype(np.float32)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0), x))
    y = np.asarray(model.apply(variables, x)).reshape(4, 6, 2)
    moved = np.asarray(model.apply(variables, x + np.array([0, 0, 7.0], np.float32))).reshape(4, 6, 2)
    np.testing.assert_allclose(moved[..., 0] - y[..., 0], 7, atol=1e-4)
    np.testing.assert_allclose(moved[..., 1], y[..., 1], atol=1e-4)


def test_the_linear_forecast_begins_as_the_last_value_and_is_one_matrix() -> None:
    x = np.random.default_rng(0).normal(size=(4, 12, 3)).astype(np.float32)
    model = LinearForecast(targets=(1,), horizon=6)
    variables = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(model.apply(variables, x), np.tile(x[:, -1:, 1], (1, 6)))
    kernel = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    variables = {"params": {"output": {"kernel": kernel, "bias": np.ones(6, np.float32)}}}
    last = x[:, -1:, 1]
    np.testing.assert_allclose(model.apply(variables, x), (x[..., 1] - last) @ kernel + 1 + last, rtol=1e-4, atol=1e-5)


def test_segments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="segment=5 must divide the window, 12, and the horizon, 6"):
        SegRNN(targets=(0,), horizon=6, segment=5).init(jax.random.key(0), np.zeros((1, 12, 1), np.float32))


def view_of(splits: Splits, outputs: Any) -> View:
    return View(splits, LinearForecast(), {}, outputs, dict, dict)


def test_metrics_in_deviations_and_in_the_targets_unit(tmp_path: Path) -> None:
    splits, _ = load(tmp_path)
    statistics = ScaleSeries().fit(splits.train)
    targets = np.asarray(splits.test["targets"])[:8]  # type: ignore[index]
    batch = ScaleSeries().transform({"inputs": np.zeros((8, 30, 8), np.float32), "targets": targets}, None, statistics)
    outputs = targets.reshape(8, -1) + 0.5
    plain, scaled = Forecast().score(outputs, batch), Forecast(scaled=True).score(outputs, batch)
    np.testing.assert_allclose(plain["mse"], 0.25, rtol=1e-4)
    expected = np.mean(0.25 / statistics["target_deviation"] ** 2)
    np.testing.assert_allclose(scaled["mse"], expected, rtol=1e-3)
    np.testing.assert_allclose(plain["loss"], expected, rtol=1e-3)  # is scaled either way


def test_the_future_of_a_users_file(tmp_path: Path) -> None:
    splits, values = load(tmp_path)
    seen: dict[str, np.ndarray] = {}

    def outputs(rows: Any) -> np.ndarray:
        seen.update(rows)
        return np.arange(12, dtype=np.float32)[None]

    write(tmp_path / "new.csv", 100)
    written = Forecast().predict(view_of(splits, outputs), str(tmp_path / "new.csv"), tmp_path / "out")
    assert [path.name for path in written] == ["forecast.csv", "forecast.png"]
    np.testing.assert_allclose(seen["inputs"][0, :, :2], values[70:100], rtol=1e-4)
    rows = list(csv.DictReader(written[0].read_text().splitlines()))
    assert rows[0] == {"date": str(START + datetime.timedelta(hours=100)), "heat": "0", "load": "1"}
    assert rows[-1] == {"date": str(START + datetime.timedelta(hours=105)), "heat": "10", "load": "11"}


def test_files_that_cannot_be_forecast_are_one_line(tmp_path: Path) -> None:
    splits, _ = load(tmp_path)
    path = tmp_path / "new.csv"
    with pytest.raises(UserError, match="there is no file"):
        read_end(path, splits.facts)
    write(path, 20)
    with pytest.raises(UserError, match="has 20 rows, and a forecast needs 30"):
        read_end(path, splits.facts)
    write(path, 100, skip=(85,))
    with pytest.raises(UserError, match=r"a gap after 2024-01-04 12:00:00, within the last 30 rows"):
        read_end(path, splits.facts)
    write(path, 100, skip=(20,))  # before the window
    assert read_end(path, splits.facts)[1].shape == (1, 30, 8)
    write(path, 100, hours=24)
    with pytest.raises(UserError, match="a row every day; give a series with the training series' step"):
        read_end(path, splits.facts)
    path.write_text(path.read_text().replace("heat", "warmth"))
    with pytest.raises(UserError, match="no column 'heat'"):
        read_end(path, splits.facts)
    write(path, 100)
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(UserError, match="twice"):
        read_end(path, splits.facts)


def test_times_go_on_by_the_calendar() -> None:
    def after(*dates: str) -> list[str]:
        times = np.array(dates, "datetime64[s]").astype(np.int64)
        none = np.zeros((len(dates), 1))
        series = Series(times, none, none == 0, ("y",), ("y",), float(np.median(np.diff(times))))
        return [str(time)[:10] for time in times_after(series, 3)]

    assert after("2023-10-31", "2023-11-30", "2023-12-31") == ["2024-01-31", "2024-02-29", "2024-03-31"]
    assert after("2024-02-26", "2024-02-27", "2024-02-28") == ["2024-02-29", "2024-03-01", "2024-03-02"]
    assert after("2022-01-01", "2023-01-01", "2024-01-01") == ["2025-01-01", "2026-01-01", "2027-01-01"]


@pytest.mark.parametrize("horizon", [1, 6])
def test_panels_draw_model_and_baselines_over_the_test_windows(tmp_path: Path, horizon: int) -> None:
    splits, _ = load(tmp_path, horizon=horizon)
    task = Forecast(lags=2)
    drawn = [
        draw()
        for draw in task.panels(
            view_of(splits, lambda rows: np.asarray(rows["targets"]).reshape(len(rows["targets"]), -1))
        )
    ]
    titles = [panel.title for panel in drawn if panel]
    assert titles == ["Forecasts and what came", *["Error by how far ahead"] * (horizon > 1), "RMSE by target"]
    table = drawn[-1]
    assert table is not None
    assert table.header[:2] == ("target", "the model")
    assert [row[:2] for row in table.rows] == [("heat", "0"), ("load", "0")]
    figure = drawn[0].figure if drawn[0] else None
    assert figure is not None
    assert [line.get_label() for line in figure.axes[0].lines][-3:] == [
        "last value",
        "ridge",
        "AR(2) and seasons",
    ] or horizon > 1
    assert panels.SHOWN


def test_the_first_rows_alone(tmp_path: Path) -> None:
    splits, values = load(tmp_path, rows=200, calendar=False)
    assert np.asarray(splits.test["targets"])[-1, -1] == pytest.approx(values[199, ::-1], rel=1e-5)  # type: ignore[index]


def test_a_prepared_series_trains_by_text_alone(tmp_path: Path) -> None:
    """`series:FILE` with the experiments' preparation: the facts that the nets are bound to come from the file."""
    write(tmp_path / "s.csv", 300)
    load_it = partial(series_file, path="s.csv", window=24, horizon=6)
    prepared = pipeline.load(Data(load=load_it, prepare=(ops.ScaleSeries(),)), Request(data_dir=tmp_path))
    assert prepared.splits.facts.value("target_columns") == [1]
    assert prepared.splits.facts.extra["seasons"] == {"a day before": 24, "a week before": 168, "a year before": 8766}
