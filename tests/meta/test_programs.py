"""What a training step is made of must not grow by accident: operations, products, loops, traffic between devices.

These are facts of the program, so they are the same on every machine and say what a stopwatch on a shared one cannot.
UPDATE_GOLDEN=1 rewrites them where a change is meant.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import pytest

from fdl.data import Request, pipeline
from fdl.distributed.layouts import choose_layout
from fdl.experiment import load_experiment
from fdl.train.program import Program, build

GOLDEN = Path(__file__).parents[1] / "golden" / "programs.json"
pytestmark = pytest.mark.usefixtures("optimised")
MEANT = "if the change is meant, run again with UPDATE_GOLDEN=1 and commit the file"
COUNTED = (
    "convolution",
    "dot_general",
    "reduce_window",
    "select_and_scatter",
    "while",
    "gather",
    "scatter",
    "sort",
    "transpose",
)
NAMES = ["fashion_mlp", "fashion_cnn", "shakespeare_lstm", "scratch_mlp", "california_mlp"]
COMPILED = "fashion_cnn"
"""The one whose fusions are counted, for which it is compiled as a user's run is."""


def program_of(name: str, tmp_path: Path, devices: int = 1) -> Program:
    experiment = load_experiment(name, ["data.source=builtin"])
    data = pipeline.load(experiment.data, Request(data_dir=tmp_path, offline=True))
    return build(experiment, data, 0, choose_layout("jit", jax.devices()[:devices]))


def facts(program: Program) -> dict[str, Any]:
    text = program.compiled.lowered_step.as_text()
    found = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
    cost = program.compiled.lowered_step.cost_analysis() or {}
    return {
        "flops": round(cost["flops"]),
        "bytes_of_state": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state_spec)),
        "operations": sum(found.values()),
        "callbacks": text.count("callback"),
        **{name: found[name] for name in COUNTED if found[name]},
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_steps_operations(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    program = program_of(name, tmp_path)
    found = facts(program)  # of the program as traced: nothing is compiled
    if name == COMPILED:
        found["fusions"] = program.compiled.train_step.as_text().count(" fusion(")
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        golden[name] = dict(found)
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    known = dict(golden[name])
    # Another jax may trace a function into a few operations more or less; what costs time is counted exactly.
    assert found.pop("operations") == pytest.approx(known.pop("operations"), rel=0.03), MEANT
    assert found.pop("fusions", 0) == pytest.approx(known.pop("fusions", 0), rel=0.1), MEANT
    assert found.pop("flops") == pytest.approx(known.pop("flops"), rel=0.01), MEANT
    assert found == known, MEANT


def test_a_compiled_step_copies_no_state_and_asks_the_host_for_nothing(tmp_path: Path) -> None:
    program = program_of("california_mlp", tmp_path)
    text, memory = program.compiled.train_step.as_text(), program.compiled.train_step.memory_analysis()
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state_spec))
    assert memory.alias_size_in_bytes >= state, "the state is donated"
    assert not re.findall(r"\b(?:outfeed|infeed|send|recv|host_compute)\b", text)


def test_many_steps_in_one_call_hold_one_step(tmp_path: Path) -> None:
    single = program_of("digits_cnn", tmp_path)
    experiment = dataclasses.replace(single.experiment, data=dataclasses.replace(single.experiment.data, resident=True))
    many = dataclasses.replace(single, experiment=experiment)
    counted = [
        collections.Counter(re.findall(r"stablehlo\.(dot_general|while)", lowered.as_text()))
        for lowered in (single.compiled.lowered_step, many.compiled.lowered_many)
    ]
    assert counted[1]["dot_general"] == counted[0]["dot_general"], "the loop's body stands once"
    assert counted[1]["while"] == counted[0]["while"] + 1
