"""Kaggle's project from the shell: look at the data, train a head on kept features, evaluate, export, submit."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax import export
from PIL import Image

from fdl.checkpoint import weights

EXPERIMENT = """
from fdl.data import Data, ops
from fdl.experiment import Experiment
from fdl.models import ResNet
from fdl.optim import Optimizer
from fdl.tasks import Classification

def experiment():
    return Experiment(
        data=Data(load="folder:dogs,labels=labels.csv,size=32,32", prepare=(ops.Standardize("imagenet"),)),
        model=ResNet(stage_sizes=(1,), width=8), task=Classification(), cache_frozen=True,
        optimizer=Optimizer(learning_rate=1e-2, freeze=("stem*", "stage*")),
        steps=6, batch_size=8, eval_batch_size=8, save_every=3, log_every=3,
    )
"""


def test_a_project_from_its_pictures_to_its_submission(
    fdl_main: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    rng, breeds = np.random.default_rng(0), ("boxer", "pug")
    rows = ["id,breed"]
    for number in range(34):
        folder = tmp_path / "dogs" / ("train" if number < 30 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (40, 32, 3)).astype(np.uint8)
        pixels[..., number % 2] += 150
        Image.fromarray(pixels).save(folder / f"a{number}.png")
        rows += [f"a{number},{breeds[number % 2]}"] if number < 30 else []
    (tmp_path / "dogs" / "labels.csv").write_text("\n".join(rows))
    sample = "id,pug,boxer\n" + "".join(f"a{number},0.5,0.5\n" for number in (33, 30, 32, 31))
    (tmp_path / "dogs" / "sample_submission.csv").write_text(sample)
    (tmp_path / "mine.py").write_text(EXPERIMENT)

    def call(*args: str, code: int = 0) -> str:
        done = fdl_main("--experiment=mine.py", *args)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    call("--mode=show_data", "--output=seen")
    assert "Examples by class" in (tmp_path / "seen" / "report.html").read_text()
    said = call("--workdir=run")
    assert "features: what reaches output, of 24 train, 6 test rows" in said
    assert "linear model on the pixels" in said
    assert "linear model on the frozen features" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    metrics = json.loads(call("--workdir=run", "--mode=eval"))
    assert metrics["test/accuracy"] == summary["metrics"]["test/accuracy"]
    call("--workdir=run", "--mode=predict", "--input=dogs/sample_submission.csv")
    with (tmp_path / "run" / "predictions" / "submission.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["id", "pug", "boxer"]
    assert [line[0] for line in lines] == ["a30", "a31", "a32", "a33"]
    call("--workdir=run", "--mode=export", "--format=stablehlo")
    call("--workdir=run", "--mode=export", "--format=timm")
    pixels = np.stack(
        [np.asarray(Image.open(tmp_path / "dogs" / "test" / f"a{n}.png").resize((32, 32))) for n in (30, 31)]
    )
    model = export.deserialize(bytearray((tmp_path / "run" / "model.stablehlo").read_bytes()))
    assert model.call(pixels).shape == (2, 2)
    held = weights.load(tmp_path / "run" / "timm.safetensors")
    assert held["conv1.weight"].shape == (8, 3, 7, 7)
    weights.save(
        tmp_path / "three.safetensors",
        {**held, "fc.weight": np.ones((3, 32), np.float32), "fc.bias": np.ones(3, np.float32)},
    )
    said = call("--workdir=again", "--set=init_from=three.safetensors", "--noreport")
    assert "newly drawn: params/output/bias (2,) (the file's is float32 (3,))" in said
    del held["conv1.weight"]
    weights.save(tmp_path / "other.safetensors", {**held, "conv_stem.weight": np.ones(1, np.float32)})
    said = call("--workdir=other", "--set=init_from=other.safetensors", code=2)
    assert "it lacks conv1.weight, and has conv_stem.weight instead" in said
    assert not (tmp_path / "other").exists()
