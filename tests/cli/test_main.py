"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import forked
import numpy as np
import pytest
from forked import Command
from PIL import Image
from small import rows_of, summary, timeless

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--experiment=digits_cnn",
    "--set=steps=60",
    "--set=eval_every=20",
    "--set=save_every=20",
    "--set=log_every=10",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short finished run that several tests look at."""
    folder = tmp_path_factory.mktemp("trained")
    done = forked.run_in_shell(folder, *SMALL, "--workdir=run")
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder / "run"


def test_a_run_leaves_all_that_is_promised(trained: Path) -> None:
    for name in (
        "config.json",
        "metrics.jsonl",
        "metrics.csv",
        "summary.json",
        "report.html",
        "checkpoints",
        "tensorboard",
    ):
        assert (trained / name).exists(), name
    done = summary(trained)
    assert (done["experiment"], done["status"], done["steps"]) == ("digits_cnn", "complete", 60)
    assert {"name", "source", "train_examples", "eval_examples", "sha256"} <= set(done["data"])  # type: ignore[arg-type]
    assert {"to_first_step", "compile", "training", "total", "examples_per_second"} <= set(done["timing"])  # type: ignore[arg-type]
    assert 0 < done["metrics"]["test/accuracy"] <= 1  # type: ignore[index]
    assert len(str(done["state_sha256"])) == 64
    config = json.loads((trained / "config.json").read_text())
    assert config["settings"]["steps"] == "60"
    assert config["versions"]["jax"]


def test_each_logged_step_stands_once(trained: Path) -> None:
    rows = rows_of(trained)
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert all("train/loss" in row and "examples_per_second" in row for row in rows)
    assert ["eval/accuracy" in row for row in rows] == [False, True, False, True, False, True]
    with open(trained / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["train/loss"]) for row in table] == [row["train/loss"] for row in rows]


def test_tensorboard_reads_the_same_figures(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "tensorboard.compat.notf", types.ModuleType("notf")
    )  # it need not import TensorFlow
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    rows = rows_of(trained)
    shown = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert shown == [(row["step"], pytest.approx(row["train/loss"], rel=1e-6)) for row in rows]


def test_what_is_printed(trained: Path) -> None:
    out = (trained.parent / "stdout").read_text()
    for words in (
        "data: digits (builtin)",
        "parameters",
        "step 60/60",
        "examples/s",
        "left 0:00",
        "majority class",
        "report: run",
    ):
        assert words in out, f"{words!r} is not in what was printed:\n{out}"
    assert "\r" not in out, "without a terminal no line is written over"
    assert "\x1b" not in out
    assert (trained.parent / "stderr").read_text() == ""


def test_the_same_command_again_has_nothing_left_to_do(run_fdl: Command, trained: Path) -> None:
    before = summary(trained)["state_sha256"]
    run_fdl(trained.parent, *SMALL, "--workdir=run")
    assert summary(trained)["state_sha256"] == before
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 6


def test_eval_says_what_training_said(run_fdl: Command, trained: Path) -> None:
    done = run_fdl(trained.parent, *SMALL, "--workdir=run", "--mode=eval")
    metrics = json.loads(done.stdout)  # what is said to people is on stderr
    assert "data: digits" in done.stderr
    assert metrics == {k: v for k, v in summary(trained)["metrics"].items() if k.startswith("test/")}  # type: ignore[attr-defined]


def test_predict_reads_pictures_of_any_kind_and_size(run_fdl: Command, trained: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 30), np.uint8)).save(pictures / "grey.png")
    Image.fromarray(rng.integers(0, 255, (9, 70, 3), np.uint8)).save(pictures / "colour.jpg")
    Image.fromarray(rng.integers(0, 255, (8, 8, 4), np.uint8)).save(pictures / "transparent.png")
    run_fdl(
        trained.parent, *SMALL, "--workdir=run", "--mode=predict", f"--input={pictures}", f"--output={tmp_path / 'out'}"
    )
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["file"] for row in table} == {"grey.png", "colour.jpg", "transparent.png"}
    assert (tmp_path / "out" / "predictions.png").stat().st_size > 1000


def test_predict_refuses_a_broken_picture_and_writes_nothing(run_fdl: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    done = run_fdl(
        trained.parent,
        *SMALL,
        "--workdir=run",
        "--mode=predict",
        f"--input={tmp_path / 'broken.png'}",
        f"--output={tmp_path / 'out'}",
        code=2,
    )
    assert "broken.png" in one_error_line(done)
    assert not (tmp_path / "out").exists()


def one_error_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fdl: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "--experiment is missing"),
        (["--experiment=fashon_cnn"], "fashion_cnn"),
        (["--experimnt=fashion_cnn"], "--experiment"),
        (["--experiment=fashion_cnn", "--set=batchsize=3"], "batch_size"),
        (["--experiment=fashion_cnn", "--set=steps=-5"], "duration"),
        (["--experiment=fashion_cnn", "steps=300"], "--set steps=300"),
        (["--experiment=fashion_cnn", "--mode=trian"], "mode"),
        (["--experiment=fashion_cnn", "--seed=-1"], "seed"),
        (["--experiment=fashion_cnn", "--require=tpu"], "tpu"),
        (["--experiment=fashion_cnn", "--mode=predict"], "--input"),
        (["--experiment=digits_cnn", "--mode=eval"], "train first"),
        (["--experiment=digits_cnn", "--set=batch_size=7", "--set=data.validation=5000"], "data.validation=5000"),
        (["--experiment=nowhere/mine.py"], "no such file"),
        (["--experiment=digits_cnn", "--data_dir=nowhere"], "nowhere is no folder"),
    ],
)
def test_the_users_error_is_one_line_exit_2_and_nothing_written(
    fdl_main: Command, tmp_path: Path, args: list[str], says: str
) -> None:
    done = fdl_main(*args, timeout=60)
    assert done.returncode == 2, done.stderr
    assert says in one_error_line(done)
    assert list(tmp_path.iterdir()) == []


def test_list_and_show_and_dry_run(fdl_main: Command, tmp_path: Path) -> None:
    listed = fdl_main("--list")
    assert listed.returncode == 0, listed.stderr
    for name in (
        "fashion_mlp",
        "fashion_cnn",
        "mnist_mlp",
        "mnist_cnn",
        "digits_cnn",
        "shakespeare_lstm",
        "california_mlp",
    ):
        assert any(line.startswith(name) for line in listed.stdout.splitlines())
    shown = fdl_main("--experiment=digits_cnn", "--show", "--set=model.dropout=0.5")
    assert "model.dropout = 0.5" in shown.stdout.splitlines()
    dry = fdl_main("--experiment=digits_cnn", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert "FLOPs" in dry.stdout
    assert list(tmp_path.iterdir()) == []


def test_another_experiment_and_other_settings_are_refused(run_fdl: Command, trained: Path) -> None:
    other = run_fdl(trained.parent, "--experiment=mnist_mlp", "--workdir=run", code=2)
    assert "digits_cnn" in one_error_line(other)
    changed = run_fdl(trained.parent, *SMALL, "--workdir=run", "--set=batch_size=32", "--seed=1", code=2)
    assert "batch_size was 64, is 32" in one_error_line(changed)
    assert "seed was 0, is 1" in one_error_line(changed)


def test_a_folder_of_other_things_is_left_alone(fdl_main: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    done = fdl_main(*SMALL, "--workdir=thesis")
    assert done.returncode == 2
    assert "chapter.txt" in one_error_line(done)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# Root without CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2), dropped by PR_CAPBSET_DROP (24) and an exec, has no more
# rights to a file than its mode gives; other users have neither, and the call does nothing.
AS_ANYONE = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "fdl.main", *sys.argv[1:]])
"""


def test_no_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    argv = [sys.executable, "-c", AS_ANYONE, *SMALL, "--set=data.feed=numpy", "--workdir=locked/run"]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "--workdir=locked/run cannot be written: Permission denied" in one_error_line(done)
    assert list((tmp_path / "locked").iterdir()) == []


def test_a_workdir_that_is_a_file(fdl_main: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fdl_main(*SMALL, "--workdir=file")
    assert done.returncode == 2
    assert "is a file" in one_error_line(done)


# ---- killed and started again ---------------------------------------------------------------------------------------

RUN = ["--experiment=digits_cnn", "--set=steps=120", "--set=eval_every=40", "--set=save_every=15", "--set=log_every=7"]
RUN += [
    "--set=model.filters=4",
    "--set=model.dense=8",
    "--set=data.feed=numpy",
]  # the same bits as tf.data's (test_train), without five seconds of importing a start


@pytest.fixture(scope="module")
def uninterrupted(run_fdl: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_fdl(folder, *RUN, "--workdir=whole")
    return folder / "whole"


def test_a_stopped_run_ends_with_the_same_bits(
    server: forked.Server, run_fdl: Command, uninterrupted: Path, tmp_path: Path
) -> None:
    """tests/faults/test_faults_kills.py counts the stops that come at any instant."""
    workdir = tmp_path / "again"
    for at_step, signum in ((21, signal.SIGTERM), (70, signal.SIGKILL)):
        run = server.start([*RUN, "--workdir=again"], tmp_path)
        log = workdir / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while run.code() is None and time.monotonic() < deadline:
            if log.exists() and any(row["step"] >= at_step for row in stripped_safely(log)):
                break
            time.sleep(0.01)
        run.send(signum)
        code = run.wait(60)
        assert code in (-signum if signum == signal.SIGKILL else 128 + signum, 0), run.said()
        assert signum == signal.SIGKILL or code == 0 or "saved" in run.said()
    run_fdl(tmp_path, *RUN, "--workdir=again")
    assert summary(workdir)["state_sha256"] == summary(uninterrupted)["state_sha256"]
    assert summary(workdir)["metrics"] == summary(uninterrupted)["metrics"]
    assert timeless(rows_of(workdir)) == timeless(rows_of(uninterrupted))


def stripped_safely(log: Path) -> list[dict[str, int]]:
    rows = []
    for line in log.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def test_help_names_every_flag(fdl_main: Command) -> None:
    done = fdl_main("--help")
    assert done.returncode == 0
    for flag in (
        "--experiment",
        "--workdir",
        "--mode",
        "--set",
        "--data_dir",
        "--parallel",
        "--offline",
        "--seed",
        "--require",
    ):
        assert f"{flag}:" in done.stdout.replace("[no]", ""), flag


def test_export_and_start_from_the_weights(run_fdl: Command, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.safetensors"
    run_fdl(trained.parent, *SMALL, "--workdir=run", "--mode=export", f"--output={out}")
    frozen = (
        "--set",
        f"init_from={out}",
        "--set",
        "optimizer.learning_rate=1e-30",
        "--set",
        "model.batch_norm_momentum=1",
    )
    run_fdl(tmp_path, *SMALL, *frozen, "--workdir=again", "--noreport")
    assert summary(tmp_path / "again")["metrics"] == pytest.approx(summary(trained)["metrics"])  # type: ignore[arg-type]
    other = run_fdl(
        tmp_path,
        *SMALL,
        "--set",
        f"init_from={out}",
        "--set",
        "model.filters=3,5",
        "--set=steps=2",
        "--workdir=other",
        "--noreport",
    )
    (said,) = (line for line in other.stdout.splitlines() if "newly drawn" in line)
    assert "conv1_norm" in said.partition("newly drawn")[2]


def test_a_trace_the_programs_text_and_no_look_at_the_test_split(fdl_main: Command, tmp_path: Path) -> None:
    refused = fdl_main(*SMALL, "--workdir=run", "--profile=5")
    assert refused.returncode == 2
    assert "--profile=5" in refused.stderr
    assert not (tmp_path / "run").exists()
    done = fdl_main(*SMALL, "--set=steps=12", "--workdir=run", "--profile=4:6", "--dump_hlo", "--notest", "--noreport")
    assert done.returncode == 0, done.stderr
    (trace,) = (tmp_path / "run/profile").rglob("perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        names = [str(event.get("name")) for event in json.load(file)["traceEvents"]]
    assert any("conv" in name for name in names)
    assert "stablehlo.convolution" in (tmp_path / "run/hlo/train.stablehlo.txt").read_text()
    assert "HloModule" in (tmp_path / "run/hlo/train.hlo.txt").read_text()
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics.keys() == {"eval/accuracy", "eval/cross_entropy", "eval/loss"}  # type: ignore[attr-defined]
    assert not (tmp_path / "run/report.html").exists()
    assert "test/" not in done.stdout
