"""The front door in Python: the same run as the command line's, and what it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small

import fdl
from fdl.experiment import load_experiment
from fdl.types import UserError

SHORT = ("steps=12", "eval_every=6", "save_every=6", "log_every=3", "num_examples=200", "batch_size=16")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fdl.Run:
    where = tmp_path_factory.mktemp("api")
    return fdl.fit(load_experiment("digits_cnn"), where / "run", seed=3, overrides=SHORT, parallel="jit", report=False)


def test_it_is_the_command_line_s_run_to_the_bit(run: fdl.Run, fdl_main, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sets = [part for text in SHORT for part in ("--set", text)]
    done = fdl_main(
        "--experiment=digits_cnn", "--workdir=cli", "--seed=3", "--noreport", "--parallel=jit", *sets, devices=8
    )
    assert done.returncode == 0, done.stderr
    summary = small.summary(tmp_path / "cli")
    assert run.summary["state_sha256"] == summary["state_sha256"]
    assert run.metrics == summary["metrics"]
    assert [row["step"] for row in run.history] == [3, 6, 9, 12]


def test_a_run_shows_what_it_reached_and_predicts(run: fdl.Run, tmp_path: Path) -> None:
    assert set(run.metrics) >= {"test/accuracy", "eval/accuracy"}
    assert "majority class" in run.baselines
    test = run.model.splits.test
    assert test is not None
    accuracy = np.mean(run.outputs(test).argmax(-1) == test["targets"])
    assert run.metrics["test/accuracy"] == pytest.approx(accuracy, abs=1e-6)
    from PIL import Image

    Image.fromarray(np.asarray(test["inputs"][0, ..., 0], np.uint8)).save(tmp_path / "one.png")
    written = run.predict(tmp_path / "one.png", tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv") in written


def test_the_same_folder_again_resumes_and_another_experiment_is_refused(run: fdl.Run) -> None:
    again = fdl.fit("digits_cnn", run.path, seed=3, overrides=SHORT, parallel="jit", report=False)
    assert again.summary["state_sha256"] == run.summary["state_sha256"]
    with pytest.raises(UserError, match="holds a run of digits_cnn"):
        fdl.fit("fashion_mlp", run.path, overrides=("data.load=digits", "data.validation=100"))


def test_compile_gives_the_pieces() -> None:
    program = fdl.compile("digits_cnn", overrides=("num_examples=100", "batch_size=16"), parallel="jit")
    assert program.total_steps == round(program.experiment.steps.in_steps(16, 100))
    assert callable(program.train_step)
    assert program.experiment.model.outputs == 10
