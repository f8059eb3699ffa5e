"""Flags: which of them mean something where, and that every one is read once, in fdl/main.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import small
from forked import Command

from fdl.cli.options import FLAGS_OF_MODES, Options, check_flags
from fdl.types import UserError

ROOT = Path(__file__).resolve().parents[2]
BRIEF = (
    "--experiment=digits_cnn",
    "--set=steps=4",
    "--set=model.filters=4",
    "--set=model.dense=8",
    "--set=data.feed=numpy",
)

COUNTED = """
import dataclasses, pathlib
from experiments.digits_cnn import experiment as base
from fdl.experiment.study import Study

with open("executed", "a") as note:
    note.write("x")

def experiment():
    return dataclasses.replace(base(), steps="10")

def study():
    return Study({"a": ("batch_size=32",), "b": ("batch_size=16",), "c": ("batch_size=nonsense",)})
"""


def test_only_main_reads_flags() -> None:
    readers = set()
    for path in (ROOT / "fdl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "absl" and "flags" in {a.name for a in node.names}:
                readers.add(path.name)
    assert readers == {"main.py"}


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("train", "seeds"),
        ("eval", "profile"),
        ("train", "input"),
        ("train", "topology"),
        ("study", "trials"),
        ("eval", "workers"),
    ],
)
def test_a_flag_that_the_mode_would_ignore_is_refused(mode: str, flag: str) -> None:
    with pytest.raises(UserError, match=rf"--{flag} means nothing to --mode={mode}, only to"):
        check_flags(mode, ["experiment", flag])


def test_a_flag_is_taken_where_it_means_something() -> None:
    for flag, modes in FLAGS_OF_MODES.items():
        for mode in modes:
            check_flags(mode, ["experiment", "set", "seed", flag])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--mode=train", "--seeds=3"], "--seeds means nothing to --mode=train"),
        (["--seed=4294967296"], "seed"),
        (["--seed=99999999999999999999"], "seed"),
        (["--seed=4294967294", "--seeds=3"], "go beyond 4294967295"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused_and_nothing_is_written(
    fdl_main: Command, tmp_path: Path, args: list[str], says: str
) -> None:
    done = fdl_main(*BRIEF, *args)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("fdl: error: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "shown"), [("--debug=true", True), ("--debug", True), ("--debug=false", False)])
def test_debug_shows_the_traceback_however_it_is_written(fdl_main: Command, flag: str, shown: bool) -> None:
    done = fdl_main("--experiment=digits_cnn", "--set=batchsize=3", flag)
    assert done.returncode == 2
    assert ("Traceback" in done.stderr) == shown


def test_a_file_of_ones_own_is_executed_once(fdl_main: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTED)
    assert fdl_main("--experiment=mine.py", "--show").returncode == 0
    assert (tmp_path / "executed").read_text() == "x"
    study = fdl_main("--experiment=mine.py")  # every variant is made before one is refused
    assert study.returncode == 2
    assert "batch_size=nonsense" in study.stderr
    assert (tmp_path / "executed").read_text() == "xx"


def test_no_look_at_the_test_split_leaves_the_report_in_and_no_report_leaves_it_out(
    fdl_main: Command, tmp_path: Path
) -> None:
    done = fdl_main(*BRIEF, "--workdir=run", "--notest")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    metrics = small.summary(tmp_path / "run")["metrics"]
    assert metrics
    assert not [name for name in metrics if name.startswith("test/")]
    without = fdl_main(*BRIEF, "--workdir=other", "--notest", "--noreport")
    assert without.returncode == 0, without.stderr
    assert not (tmp_path / "other" / "report.html").exists()


def test_the_paths_of_options_are_the_users_own(fdl_main: Command) -> None:
    done = fdl_main(*BRIEF, "--workdir=~nobody-of-that-name/run")
    assert done.returncode == 2
    assert "--workdir=~nobody-of-that-name/run" in done.stderr
    assert Options(data_dir=str(ROOT)).data_folder() == ROOT
    with pytest.raises(UserError, match="is no folder"):
        Options(data_dir="nowhere").data_folder()


def test_a_stray_word_is_named(fdl_main: Command) -> None:
    """`--test False` is two arguments; taken for `--test`, it would mean its opposite."""
    done = fdl_main("--experiment=digits_cnn", "--test", "False", "--dry_run")
    assert done.returncode == 2
    assert "stray word 'False'" in done.stderr
