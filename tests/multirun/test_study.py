"""Studies and --seeds through the command line: the runs, the page, and what a killed study keeps."""

from __future__ import annotations

import json
import signal
import statistics
import time
from pathlib import Path

import forked
import pytest
from forked import Command
from small import summary

from fdl.experiment import experiment_names, find_experiment, load_experiment, settings, show, study

STUDY = '''"""Do wider nets help? <b>Bold</b> question."""
import dataclasses
from experiments.digits_cnn import experiment as base
from fdl.models import MLP
from fdl.experiment.study import Study


def experiment():
    return dataclasses.replace(base(), model=MLP(widths=(4,)), steps="40", log_every="10", eval_every="20", save_every="20")


def study():
    return Study(
        {f"{width} units": (f"model.widths={width}",) for width in (1, 16)},
        seeds=2, metrics=("test/accuracy", "train/accuracy"), curves=("train/loss",),
    )
'''


@pytest.fixture(scope="module")
def done(run_fdl: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished study: its directory, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "wide.py").write_text(STUDY)
    return folder / "run", run_fdl(folder, "--experiment=wide.py", "--workdir=run").stdout


def test_every_variant_has_every_seed(done: tuple[Path, str]) -> None:
    path, said = done
    found = summary(path)["variants"]
    assert list(found) == ["1 units", "16 units"]
    for label, variant in found.items():
        folders = sorted((path / "runs" / label.replace(" ", "-")).iterdir())
        assert [folder.name for folder in folders] == ["seed-0", "seed-1"]
        each = [summary(folder)["metrics"]["test/accuracy"] for folder in folders]
        told = variant["metrics"]["test/accuracy"]
        assert told["values"] == each
        assert told["mean"] == pytest.approx(statistics.mean(each))
        assert (told["low"], told["high"]) == (min(each), max(each))
        assert f"{label}: test/accuracy" in said
        for folder in folders:
            assert json.loads((folder / "config.json").read_text())["seed"] == int(folder.name[-1])
            assert (folder / "metrics.jsonl").read_text().count("\n") == len(
                (folder / "metrics.csv").read_text().splitlines()
            ) - 1
    assert found["16 units"]["metrics"]["test/accuracy"]["mean"] > found["1 units"]["metrics"]["test/accuracy"]["mean"]


def test_the_page_holds_the_table_and_the_curves(done: tuple[Path, str]) -> None:
    page = (done[0] / "report.html").read_text()
    assert "Side by side" in page
    assert "train/loss over step" in page
    assert "model.widths=16" in page
    assert page.count("data:image/") == 2
    assert "<b>Bold" not in page


def test_the_same_command_again_makes_nothing_anew(run_fdl: Command, done: tuple[Path, str]) -> None:
    path, _ = done
    before = {file: file.stat().st_mtime_ns for file in (path / "runs").rglob("*") if file.is_file()}
    metrics = summary(path)["variants"]
    run_fdl(path.parent, "--experiment=wide.py", "--workdir=run")
    assert {file: file.stat().st_mtime_ns for file in (path / "runs").rglob("*") if file.is_file()} == before
    assert summary(path)["variants"] == metrics


def test_other_settings_and_other_directories_are_refused(run_fdl: Command, done: tuple[Path, str]) -> None:
    path, _ = done
    ended = run_fdl(path.parent, "--experiment=wide.py", "--workdir=run", "--set=batch_size=32", code=2)
    assert "batch_size was" in ended.stderr
    assert ended.stderr.count("\n") == 1
    ended = run_fdl(path.parent, "--experiment=wide.py", "--workdir=run", "--mode=train", code=2)
    assert "holds a run of study of wide" in ended.stderr
    ended = run_fdl(path.parent, "--experiment=wide.py", "--workdir=run/runs/16-units/seed-0", code=2)
    assert "not a study of wide" in ended.stderr
    (path.parent / "bad.py").write_text(STUDY.replace("model.widths=", "model.width="))
    ended = run_fdl(path.parent, "--experiment=bad.py", "--workdir=other", code=2)
    assert "model.widths" in ended.stderr
    assert not (path.parent / "other").exists()


def test_a_longer_study_is_not_taken_for_the_shorter_one(run_fdl: Command, tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(STUDY.replace("(1, 16)", "(4,)"))
    run_fdl(tmp_path, "--experiment=wide.py", "--workdir=run")
    (tmp_path / "wide.py").write_text(STUDY.replace("(1, 16)", "(4,)").replace('steps="40"', 'steps="60"'))
    run_fdl(tmp_path, "--experiment=wide.py", "--workdir=run")
    assert summary(tmp_path / "run/runs/4-units/seed-0")["steps"] == 60


def test_the_test_split_is_left_alone_where_it_is_to_be(run_fdl: Command, tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(STUDY.replace("(1, 16)", "(4,)"))
    run_fdl(tmp_path, "--experiment=wide.py", "--workdir=run", "--notest")
    assert {name.split("/")[0] for name in summary(tmp_path / "run/runs/4-units/seed-0")["metrics"]} == {
        "train",
        "eval",
    }


def test_a_study_without_its_data_leaves_nothing_behind(run_fdl: Command, tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(STUDY)
    ended = run_fdl(tmp_path, "--experiment=wide.py", "--workdir=run", "--data_dir=nowhere", code=2)
    assert "nowhere is no folder" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_killed_study_goes_on_with_what_is_missing(
    server: forked.Server, run_fdl: Command, done: tuple[Path, str], tmp_path: Path
) -> None:
    path, _ = done
    (tmp_path / "wide.py").write_text(STUDY)
    started = server.start(["--experiment=wide.py", "--workdir=run"], tmp_path)
    first = tmp_path / "run/runs/1-units/seed-0/summary.json"
    until = time.monotonic() + 120
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.02)
    started.send(signal.SIGKILL)
    started.wait()
    made = first.stat().st_mtime_ns
    run_fdl(tmp_path, "--experiment=wide.py", "--workdir=run")
    assert first.stat().st_mtime_ns == made
    assert summary(tmp_path / "run")["variants"] == summary(path)["variants"]


def test_seeds_of_one_experiment_by_processes(fdl_main: Command, tmp_path: Path) -> None:
    small = ("--experiment=digits_cnn", "--set=steps=20", "--set=eval_every=10", "--set=save_every=10", "--notest")
    ended = fdl_main(*small, "--seeds=2", "--seed=5", "--workdir=many", timeout=240)
    assert ended.returncode == 0, ended.stderr
    single = fdl_main(*small, "--seed=6", "--workdir=one")
    assert single.returncode == 0, single.stderr
    found = summary(tmp_path / "many")
    values = found["variants"]["digits_cnn"]["metrics"]["eval/accuracy"]["values"]
    assert values[1] == summary(tmp_path / "one")["metrics"]["eval/accuracy"]
    assert found["metrics"]["eval/accuracy"] == pytest.approx(statistics.mean(values))
    inside = tmp_path / "many/runs/digits_cnn/seed-6"
    assert summary(inside)["state_sha256"] == summary(tmp_path / "one")["state_sha256"]
    assert "digits_cnn: eval/accuracy" in ended.stdout


def test_the_interval_is_students() -> None:
    # Values 1, 2, 3: standard deviation 1, t of 2 degrees of freedom 4.302653 (tables), by the root of 3.
    found = study.spread([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert study.spread([4.0]).half != study.spread([4.0]).half


STUDIES = [name for name in experiment_names() if name.startswith("study_")]


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_the_studies_is_an_experiment(name: str) -> None:
    found = find_experiment(name)
    assert found.study is not None
    declared = found.study()
    experiments = [load_experiment(name, list(differences)) for differences in declared.variants.values()]
    shown = [[(path, show(value)) for path, value in settings(each)] for each in experiments]
    assert all(one != other for i, one in enumerate(shown) for other in shown[:i]), "two variants are the same"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "rising"),
    [
        ("study_optimizers", "train/accuracy", ["batch", "mini-batch", "Adam"]),
        ("study_optimizers", "train/accuracy", ["momentum", "RMSProp"]),
        ("study_initialisation", "train/accuracy", ["zeros", "large", "he"]),
        ("study_regularisation", "train/accuracy", ["L2", "none"]),
        ("study_regularisation", "test/accuracy", ["none", "L2"]),
        ("study_regularisation", "test/accuracy", ["none", "dropout"]),
        ("study_depth", "train/accuracy", ["0 hidden units", "2 hidden units", "4 hidden units", "50 hidden units"]),
    ],
)
def test_the_originals_orders_hold_over_five_seeds(
    run_fdl: Command, name: str, metric: str, rising: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "orders"
    folder.mkdir(exist_ok=True)
    if not (folder / name / "summary.json").exists():
        run_fdl(folder, f"--experiment={name}", f"--workdir={name}")
    found = summary(folder / name)["variants"]
    means = [found[label]["metrics"][metric]["mean"] for label in rising]
    assert means == sorted(means), dict(zip(rising, means, strict=True))
    assert len(set(means)) == len(means)
