"""A user's own files from the command line: trained on and predicted from by the same rules, in the user's units."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import small
from forked import Command

SMALL = [f"--set={setting}" for setting in ("batch_size=32", "eval_every=100", "save_every=100", "log_every=100")]


def decimal(value: float) -> str:
    return f"{value:.2f}".replace(".", ",")


def price_of(area: float, place: str, age: float) -> float:
    return 2000 * area + 80_000 * (place == "harbour") - 500 * age + 50_000


def write_houses(path: Path, count: int = 240) -> None:
    """Prices of some 300,000, semicolons and decimal commas, an id and some unknown ages."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["id", "area", "age", "place", "price"])
        for row in range(count):
            area, age, place = rng.uniform(30, 200), rng.integers(0, 80), ("harbour", "hill")[rng.integers(2)]
            known = str(age) if row % 12 else "NA"
            writer.writerow([row, decimal(area), known, place, decimal(price_of(area, place, age))])


def test_a_table_is_trained_on_and_new_rows_are_predicted_by_the_same_rules(tmp_path: Path, fdl_main: Command) -> None:
    write_houses(tmp_path / "own.csv")
    run = ["--experiment=california_mlp", "--workdir=run", "--set=data=csv:own.csv,target=price", *SMALL]
    run += ["--set=steps=400", "--set=model.widths=32", "--set=data.validation=20", "--set=model.dropout=0"]
    done = fdl_main(*run)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "own.csv (semicolons; decimal commas; predicts price; without id (an index)): 172 train" in said
    summary = small.summary(tmp_path / "run")
    # In the price's own unit: far from a mean that a net would take thousands of steps to reach.
    assert summary["metrics"]["test/rmse"] < 0.3 * summary["baselines"]["mean of training"]["test/rmse"]

    (tmp_path / "new.csv").write_text("place,area,age\nhill,100.5,?\nmoon,60,10\n\n")
    done = fdl_main(*run, "--mode=predict", "--input=new.csv")
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "run").rglob("predictions.csv")
    first, second = csv.DictReader(written.read_text().splitlines())
    assert (first["place"], first["area"], first["age"]) == ("hill", "100.5", "?")
    assert abs(float(first["prediction"]) - price_of(100.5, "hill", 40)) < 50_000
    assert 50_000 < float(second["prediction"]) < 300_000  # a place that training lacks is no fault

    (tmp_path / "new.csv").write_text("place,area,age\nhill,1e39,3\n")
    done = fdl_main(*run, "--mode=predict", "--input=new.csv")
    assert done.returncode == 2
    assert "new.csv, line 2, column area: '1e39' is beyond 1e+18" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_series_is_forecast_in_its_own_unit_and_beside_the_last_value(tmp_path: Path, fdl_main: Command) -> None:
    hours = np.arange(600)
    load = 5000 + 1000 * np.sin(2 * np.pi * hours / 24)
    start = np.datetime64("2024-03-01T00", "h")
    lines = [f"{str(start + hour).replace('T', ' ')}:00,{value:.1f}" for hour, value in zip(hours, load, strict=True)]
    (tmp_path / "load.csv").write_text("\n".join(["time,load", *lines]))
    (tmp_path / "forecast.py").write_text(
        "from fdl.data import Data, ops\nfrom fdl.experiment import Experiment\nfrom fdl.models import MLP\n"
        "from fdl.optim import Optimizer\nfrom fdl.tasks import Regression\n\n\n"
        "def experiment():\n"
        "    prepare = (ops.Standardize(), ops.ScaleTargets())\n"
        '    return Experiment(data=Data(load="series:load.csv,window=24,horizon=6", prepare=prepare), model=MLP(widths=(32,)),\n'
        '        task=Regression(), optimizer=Optimizer(rule="adam", learning_rate=3e-3), steps=300)\n'
    )
    done = fdl_main("--experiment=forecast.py", "--workdir=run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "forecasts load; a row every hour): 331 train, 115 validation, 115 test" in done.stdout + done.stderr
    summary = small.summary(tmp_path / "run")
    ahead = np.arange(480, 600 - 6 + 1)[:, None] + np.arange(6)
    oracle = np.sqrt(np.mean(np.square(load[ahead] - load[ahead[:, :1] - 1])))
    assert abs(summary["baselines"]["last value"]["test/rmse"] - oracle) < 1
    assert summary["metrics"]["test/rmse"] < 0.5 * oracle
