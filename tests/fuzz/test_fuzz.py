"""Whatever a user hands over: a result or one line that names it; no hang, nothing written elsewhere, bounded memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import logging

from fuzz import TARGETS, campaign

SEED = 0
FAST = {
    "overrides": 200,
    "tables": 120,
    "own_tables": 120,
    "own_series": 120,
    "own_texts": 40,
    "images": 120,
    "archives": 80,
    "safetensors": 60,
    "npz": 60,
    "idx_files": 60,
    "idx_folders": 30,
}
FULL = {"overrides": 2000, "tables": 1500, "own_tables": 1500, "own_series": 1000, "own_texts": 500, "images": 1500,
        "archives": 1000, "safetensors": 600, "npz": 600, "idx_files": 600,
        "idx_folders": 200}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_some_inputs(tmp_path: Path, name: str) -> None:
    logging.set_verbosity(logging.ERROR)
    try:
        seen = campaign.run(TARGETS[name](), FAST[name], SEED, tmp_path)
    finally:
        logging.set_verbosity(logging.WARNING)
    assert min(seen["loaded"], seen["refused"]) > 0.05 * FAST[name], "these cases show little"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_full_count_within_2_gib(name: str) -> None:
    tests = Path(__file__).resolve().parents[1]
    env = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "fuzz", name, str(FULL[name]), f"--seed={SEED}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["loaded"] + seen["refused"] == FULL[name]


def test_the_counts_are_those_promised() -> None:
    inputs = {
        kind: sum(count for name, count in counts.items() if name != "overrides")
        for kind, counts in (("fast", FAST), ("full", FULL))
    }
    assert sum(FAST.values()) >= 500
    assert inputs["full"] >= 5000
    assert FULL["overrides"] >= 2000
    assert FAST.keys() == FULL.keys() == TARGETS.keys()


@pytest.mark.parametrize(
    "args",
    [
        ["--set", "batchsize=3"],
        ["--set", "model.dropout=\udcff\n"],
        ["--set", "steps=" + "9" * 400],
        ["--set", "data.load=os.system"],
        ["--experiment=../fdl/main"],
        ["--experiment=" + "x" * 5000 + ".py"],
    ],
)
def test_a_bad_command_line(
    tmp_path: Path, fdl_main: Callable[..., subprocess.CompletedProcess[str]], args: list[str]
) -> None:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fdl_main("--experiment=digits_cnn", *args, "--workdir=run")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert done.stderr.startswith("fdl: error: ")
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    # The processor's time, for the tests may share the machine with others.
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 2
