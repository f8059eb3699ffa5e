"""The sequence experiments on stand-ins, made small: one device and two agree, a stopped run resumes to the same bits."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from small import assert_states_close, train, train_resumed

from fdl.api import fit
from fdl.data import Request, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment, load_experiment
from fdl.experiment.binding import bind_experiment
from fdl.train.program import build

SMALL = {
    "ett_segrnn": (
        "data.load.window=48", "data.load.horizon=8", "model.segment=8", "model.width=8", "model.dropout=0", "num_examples=64",
    ),
    "spoken_digits_cnn": ("model.filters=4,8", "model.dropout=0", "num_examples=64"),
    "bbc_summaries": ("model.width=8", "model.embedding=4", "model.dropout=0", "num_examples=64"),
}  # fmt: skip
EVERY = ("data.source=builtin", "steps=4", "batch_size=16", "eval_every=4", "save_every=2", "log_every=2")


def small(name: str, root: Path) -> tuple[Experiment, pipeline.Prepared]:
    made = load_experiment(name, [*EVERY, *SMALL[name]])
    data = pipeline.load(made.data, Request(data_dir=root, offline=True), made.num_examples)
    splits = data.splits
    rows = {
        part: held and jax.tree.map(lambda leaf: leaf[:32], held)
        for part, held in (("validation", splits.validation), ("test", splits.test))
    }
    return bind_experiment(made, splits.facts), dataclasses.replace(data, splits=dataclasses.replace(splits, **rows))


@pytest.mark.parametrize("name", SMALL)
def test_devices_agree_and_a_stopped_run_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    made, data = small(name, tmp_path)
    program = build(made, data, 0, layouts.choose_layout("jit", jax.devices()[:1]))
    whole = train_resumed(program, tmp_path, stop_at=2)
    spread = train(build(made, data, 0, layouts.choose_layout("pmap", jax.devices()[:2])), tmp_path / "pmap")
    assert_states_close(whole, spread, rtol=2e-3, atol=2e-4)


def test_a_users_series_trains_and_is_forecast_beyond_its_end(tmp_path: Path) -> None:
    days = np.datetime64("2021-01-01") + np.arange(300)
    values = 10 + np.sin(np.arange(300) / 7)
    path = tmp_path / "sales.csv"
    path.write_text("day,sales\n" + "".join(f"{day},{value:.3f}\n" for day, value in zip(days, values, strict=True)))
    overrides = [f"data=series:{path},window=14,horizon=3", "steps=4", "model.width=4", "batch_size=16", "eval_every=4"]
    run = fit("temperature_gru", tmp_path / "run", overrides=overrides, data_dir=tmp_path, report=False)
    assert {"last value", "ridge", "AR(7) and seasons"} <= set(run.baselines)
    written = run.predict(path)
    table = list(csv.DictReader(written[0].read_text().splitlines()))
    assert [row["day"] for row in table] == ["2021-10-28", "2021-10-29", "2021-10-30"]
    assert all(np.isfinite(float(row["sales"])) for row in table)
