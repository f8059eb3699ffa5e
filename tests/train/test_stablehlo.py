"""Exported functions are run without fdl's code, on any number of rows, and give what the model gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fdl.data import Data, Request, Splits, ops, pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.models import CNN, MLP, ResNet
from fdl.tasks import Classification
from fdl.train.evaluation import view
from fdl.train.program import Program, build
from fdl.train.stablehlo import serialize_outputs
from fdl.types import UserError

RNG = np.random.default_rng(0)
RUN = """
import sys
import numpy as np
from jax import export
assert not [name for name in sys.modules if name.split(".")[0] in ("fdl", "flax")]
for path in sys.argv[1:]:
    held = np.load(path + ".npz")
    call = export.deserialize(bytearray(open(path, "rb").read())).call
    for rows in (5, 1):
        np.testing.assert_allclose(call(held["inputs"][:rows]), held["outputs"][:rows], rtol=1e-4, atol=1e-5)
"""
PICTURES = RNG.integers(0, 255, (40, 16, 16, 3)).astype(np.uint8)


def made(model: Any, inputs: np.ndarray, *prepare: Any) -> Program:
    def source(request: Request) -> Splits:
        rows = {"inputs": inputs, "targets": (np.arange(len(inputs)) % 3).astype(np.int32)}
        return Splits("toy", "builtin", "made here", rows, rows, sha256="0")

    experiment = Experiment(
        data=Data(load=source, prepare=prepare), model=model, task=Classification(), name="toy", steps=1
    )
    data = pipeline.load(experiment.data, Request())
    return build(experiment, data, 0, layouts.choose_layout("jit", jax.devices()[:1]))


def test_exported_functions_run_without_fdl(tmp_path: Path) -> None:
    programs = {
        "cnn": made(CNN(filters=(4,), padding="SAME", dense=(8,), batch_norm=True), PICTURES, ops.Standardize("unit")),
        "resnet": made(ResNet(stage_sizes=(1, 1), block="basic", width=4), PICTURES, ops.Standardize()),
        "mlp": made(MLP(widths=(8,)), PICTURES[:, 0, 0].astype(np.float32)),
    }
    for name, program in programs.items():
        variables = program.compiled.initial_state().variables
        inputs = program.data.splits.test["inputs"][:5]
        outputs = view(program, variables).outputs({"inputs": inputs})
        (tmp_path / name).write_bytes(serialize_outputs(program, jax.device_get(variables)))
        np.savez(tmp_path / f"{name}.npz", inputs=inputs, outputs=outputs)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    files = [str(tmp_path / name) for name in programs]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *files], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_exported_is_one_line() -> None:
    from fdl.models import HandMLP

    program = made(HandMLP(widths=(4,)), PICTURES[:, 0, 0].astype(np.float32))
    with pytest.raises(UserError, match="--format=stablehlo: toy cannot be exported") as error:
        serialize_outputs(program, jax.device_get(program.compiled.initial_state().variables))
    assert "\n" not in str(error.value)
