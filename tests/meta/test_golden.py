"""What must not change by accident: every experiment's settings, and the first steps of some.

A change that is meant shows in review: UPDATE_GOLDEN=1 ./launch.sh test tests/meta/test_golden.py rewrites the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import pytest

from fdl.data import Request, pipeline
from fdl.distributed.layouts import choose_layout, shard
from fdl.experiment import experiment_names, load_experiment, settings, show
from fdl.train.program import build

GOLDEN = Path(__file__).parents[1] / "golden"
MEANT = "if the change is meant, run again with UPDATE_GOLDEN=1 and commit the file"


@pytest.mark.parametrize("name", experiment_names())
def test_the_settings_of_every_experiment(name: str) -> None:
    text = "".join(f"{path} = {show(value)}\n" for path, value in settings(load_experiment(name)))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text, MEANT


@pytest.mark.parametrize("name", ["digits_cnn", "california_mlp", "shakespeare_lstm"])
def test_the_first_three_steps(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # the stand-ins, whatever this machine holds
    small = ["data.source=builtin", "data.feed=numpy", "batch_size=16"]
    if name == "shakespeare_lstm":
        small += ["model.width=32", "data.load.length=32", "model.vocabulary=65"]  # the real text's, not the stand-in's
    experiment = load_experiment(name, small)
    data = pipeline.load(experiment.data, Request(data_dir=tmp_path, offline=True))
    program = build(experiment, data, seed=0, layout=choose_layout("jit", jax.devices()[:1]))
    state, losses = program.compiled.initial_state(), []
    stream = pipeline.Stream(0, 16, len(jax.tree.leaves(data.splits.train)[0]))
    for batch in pipeline.numpy_feed(data.splits.train, stream, 0, 3):
        state, metrics = program.compiled.train_step(state, shard(batch, program.layout), program.compiled.key)
        total, weight = metrics.sums["loss"]
        losses.append(float(total / weight))
    path = GOLDEN / "first_steps.json"
    golden = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(golden | {name: losses}, indent=1, sort_keys=True) + "\n")
        golden[name] = losses
    # Sums are taken in another order on other processors: five digits, not all of them.
    assert losses == pytest.approx(golden[name], rel=2e-4), MEANT
