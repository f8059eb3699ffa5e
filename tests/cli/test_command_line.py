"""Every mode and promise of the command line that nothing else starts: from the shell to what is printed and left behind."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import forked
import numpy as np
import pytest
from PIL import Image
from small import rows_of, summary

# ---- how a command line is started ------------------------------------------------------------------------------------


class Done(NamedTuple):
    """The exit code of a command line, and what it printed, its errors among it."""

    code: int
    said: str


Call = Callable[..., Done]


def call_in(server: forked.Server, folder: Path, log: Path, no_data: Path) -> Call:
    """`call("--experiment=own.py", ...)` is `python -m fdl.main ...` in that folder, with these environment variables.

    No data set of this machine is found.
    """

    def call(*args: str, **env: str) -> Done:
        with pytest.MonkeyPatch.context() as at:
            at.delenv("FDL_DATA_DIR", raising=False)
            started = server.start(args, folder, out=log, env={"TFDS_DATA_DIR": str(no_data)} | env)
        return Done(started.wait(), started.said())

    return call


@pytest.fixture
def call(server: forked.Server, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    return call_in(server, tmp_path, tmp_path_factory.mktemp("log") / "log", tmp_path_factory.mktemp("no_data"))


def error_line(done: Done) -> str:
    """The only error that was printed."""
    (line,) = [line for line in done.said.splitlines() if line.startswith("fdl: error: ")]
    assert "Traceback" not in done.said
    return line


# Its first loss is ln 3, for the output layer begins at zero; a file called "stop" makes it ask itself to stop.
OWN = """
import dataclasses, os, pathlib, signal
import numpy as np
from flax import linen as nn
from fdl.data import Data, Facts, Splits
from fdl.experiment import Experiment
from fdl.tasks import Classification

def rows(request):
    rng = np.random.default_rng(0)
    rows = {"inputs": rng.normal(size=(64, 2)).astype(np.float32), "targets": rng.integers(0, 3, 64).astype(np.int32)}
    return Splits("given", "builtin", "drawn", rows, rows, rows, facts=Facts(classes=("a", "b", "c")))

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(8, name="hidden")(x))
        return nn.Dense(3, kernel_init=nn.initializers.zeros_init(), name="output")(x)

@dataclasses.dataclass(frozen=True)
class Brief(Classification):
    def baselines(self, splits):
        return {}

    def panels(self, view):
        return []

    def sample(self, view):
        if pathlib.Path("stop").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return f"so far {len(view.outputs(view.splits.test))} answers"

def experiment():
    return Experiment(
        data=Data(load=rows, feed="numpy"), model=Net(), task=Brief(), steps=8, batch_size=16, eval_batch_size=16,
        log_every=4, eval_every=4, save_every=4, sample_every=4,
    )
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


# ---- changed code -----------------------------------------------------------------------------------------------------

ARGV = ("--experiment=own.py", "--workdir=run")


@pytest.fixture(scope="module")
def stopped(server: forked.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own.py and its run, which was stopped half way."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "own.py").write_text(OWN)
    (folder / "stop").touch()
    done = call_in(server, folder, tmp_path_factory.mktemp("log") / "log", folder)(*ARGV)
    assert done.code == 143, done.said
    (folder / "stop").unlink()
    return folder


def test_changed_code_is_refused_by_name_and_goes_on_when_accepted(call: Call, stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    (tmp_path / "own.py").write_text(OWN.replace("nn.relu", "nn.tanh"))
    refused = call(*ARGV)
    assert refused.code == 2, refused.said
    assert "code was changed" in error_line(refused)
    assert "--accept_changes" in error_line(refused)
    for name in ("config.json", "metrics.jsonl"):
        assert (run / name).read_bytes() == (stopped / "run" / name).read_bytes()
    accepted = call(*ARGV, "--accept_changes")
    assert accepted.code == 0, accepted.said
    assert re.search(r"resumed at step [4-7] of 8", accepted.said)
    assert [row["step"] for row in rows_of(run)] == [4, 8]
    before, config = (json.loads((folder / "config.json").read_text()) for folder in (stopped / "run", run))
    assert config["program_sha256"] != before["program_sha256"]
    assert len(config["resumes"]) == 1
    again = call(*ARGV)
    assert again.code == 0, "the code that was accepted is the run's own from then on"


def test_a_remark_in_the_code_changes_nothing(call: Call, stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "own.py").write_text(f"{OWN}\n# a remark\n")
    resumed = call(*ARGV)
    assert resumed.code == 0, resumed.said
    assert re.search(r"resumed at step [4-7] of 8", resumed.said)


# ---- the modes --------------------------------------------------------------------------------------------------------


def test_replay_shows_the_step_that_went_over_the_limit(call: Call, own: Path, tmp_path: Path) -> None:
    argv = (*ARGV, "--set=loss_limit=0.5")
    ended = call(*argv)
    assert ended.code == 1, ended.said
    first = f"{math.log(3):.4g}"
    assert f"the loss of step 1 is {first}, over loss_limit=0.5" in error_line(ended)
    assert "--mode=replay" in error_line(ended)
    record = json.loads((tmp_path / "run" / "bad_step_1.json").read_text())
    replayed = call(*argv, "--mode=replay")
    assert replayed.code == 0, replayed.said
    assert f"step 1, made again from step 0: the loss is {first}, over loss_limit=0.5" in replayed.said
    (loss,) = [line.split() for line in replayed.said.splitlines() if line.startswith("loss ")]
    assert loss == ["loss", "0", "16", first], "none of the 16 losses is not finite, and each is ln 3"
    examples = re.findall(r"(\d+): ([\d.]+)", replayed.said.splitlines()[-1])
    assert {int(row) for row, _ in examples} <= set(record["rows"])
    assert {loss for _, loss in examples} == {first}


def test_a_plan_counts_the_bytes_of_what_is_trained(call: Call, own: Path, tmp_path: Path) -> None:
    done = call("--experiment=own.py", "--mode=plan", "--topology=cpu:1")
    assert done.code == 0, done.said
    assert "planned, not run: cpu:1 (1 devices" in done.said
    bytes_of = dict(re.findall(r"^  (\S.*?)  +([\d.]+) B$", done.said, re.MULTILINE))
    parameters = 4 * (2 * 8 + 8 + 8 * 3 + 3)
    assert float(bytes_of["parameters"]) == parameters
    assert float(bytes_of["optimizer state"]) == 2 * parameters + 4, "two averages of Adam's, and its count of steps"
    assert float(bytes_of["batch"]) == 16 * (2 * 4 + 4)
    assert [path.name for path in tmp_path.iterdir()] == ["own.py"]


def test_gradients_are_checked(call: Call, own: Path, tmp_path: Path) -> None:
    done = call("--experiment=own.py", "--mode=check_gradients")
    assert done.code == 0, done.said
    assert "gradients right:" in done.said
    for name in ("hidden/kernel", "hidden/bias", "output/kernel", "output/bias"):
        assert name in done.said
    wrong = """
import jax
@jax.custom_vjp
def twice(x):
    return 2 * x
twice.defvjp(lambda x: (2 * x, None), lambda _, g: (2.001 * g,))
"""
    own.write_text(wrong + OWN.replace("nn.relu(", "twice("))
    refused = call("--experiment=own.py", "--mode=check_gradients")
    assert refused.code == 1, refused.said
    assert "the gradient of hidden/" in error_line(refused)


def test_samples_are_printed_and_logged(call: Call, own: Path, tmp_path: Path) -> None:
    done = call("--experiment=own.py", "--workdir=run")
    assert done.code == 0, done.said
    assert done.said.splitlines().count("so far 64 answers") == 2
    assert [(row["step"], row.get("sample")) for row in rows_of(tmp_path / "run")] == [
        (4, "so far 64 answers"), (8, "so far 64 answers"),
    ]  # fmt: skip
    never = call("--experiment=own.py", "--workdir=never", "--set=sample_every=0")
    assert "so far" not in never.said
    assert all("sample" not in row for row in rows_of(tmp_path / "never"))


def test_the_newest_run_is_evaluated_by_default(call: Call, own: Path, tmp_path: Path) -> None:
    metrics = {}
    for seed in (0, 1):
        before = set(tmp_path.glob("runs/own-*"))
        done = call("--experiment=own.py", f"--seed={seed}")
        assert done.code == 0, done.said
        (run,) = set(tmp_path.glob("runs/own-*")) - before
        metrics[run] = summary(run)["metrics"]
    older, newer = metrics
    assert metrics[older]["test/loss"] != metrics[newer]["test/loss"]
    (tmp_path / "runs" / "other-99999999-000000-ffff").mkdir()
    done = call("--experiment=own.py", "--mode=eval")
    assert done.code == 0, done.said
    assert f"run: runs/{newer.name}, step" in done.said
    assert json.loads(done.said.splitlines()[-1]) == {k: v for k, v in metrics[newer].items() if k.startswith("test/")}
    shutil.rmtree(newer)
    done = call("--experiment=own.py", "--mode=eval")
    assert f"run: runs/{older.name}, step" in done.said


def test_debug_shows_where_an_error_came_from(call: Call, own: Path) -> None:
    done = call("--experiment=own.py", "--mode=eval", "--debug")
    assert done.code == 2
    assert "Traceback" in done.said
    assert "fdl: error: " in done.said


# ---- data -------------------------------------------------------------------------------------------------------------

TABLE = (
    "--experiment=california_mlp", "--offline", "--set=model.widths=4", "--set=num_examples=64", "--set=data.feed=numpy",
    "--set=batch_size=16", "--set=steps=4", "--set=data.validation=16", "--set=eval_batch_size=16", "--notest",
)  # fmt: skip


def test_a_run_on_a_stand_in_says_so_on_its_result_line(call: Call, tmp_path: Path) -> None:
    done = call(*TABLE, "--workdir=run")
    assert done.code == 0, done.said
    (result,) = [line for line in done.said.splitlines() if line.startswith("eval/rmse ")]
    assert result.endswith("(on a stand-in: these figures say nothing about the real data set)")
    data = summary(tmp_path / "run")["data"]
    assert (data["name"], data["source"]) == ("california_housing-standin", "builtin")


def test_fdl_data_dir_is_where_data_is_looked_for(call: Call, tmp_path: Path) -> None:
    columns = "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income"
    lines = [f"{columns},median_house_value,ocean_proximity"]
    lines += [
        f"-1,2,3,{number},5,6,7,8,{1000 * number},{'INLAND' if number % 2 else 'ISLAND'}" for number in range(200)
    ]
    (tmp_path / "my data" / "tabular").mkdir(parents=True)
    (tmp_path / "my data" / "tabular" / "california-housing.csv").write_text("\n".join(lines) + "\n")
    found = call(*TABLE, "--workdir=run", FDL_DATA_DIR="my data")
    assert found.code == 0, found.said
    assert "data: california_housing (files) from my data/tabular/california-housing.csv: 64 train" in found.said
    assert "stand-in" not in found.said
    data = summary(tmp_path / "run")["data"]
    assert (data["name"], data["test_examples"]) == ("california_housing", 40)
    refused = call(*TABLE, "--workdir=other", FDL_DATA_DIR="nowhere")
    assert refused.code == 2
    assert "FDL_DATA_DIR=nowhere is no folder" in error_line(refused)
    assert not (tmp_path / "other").exists()


PETS = """
import functools
from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.tasks import Classification

def experiment():
    load = functools.partial(sources.folder, path="pets", size=(6, 6), channels=1)
    return Experiment(
        data=Data(load=load, prepare=(ops.Standardize("unit"),), feed="numpy"), model=MLP(widths=(), outputs=2),
        task=Classification(), steps=2, batch_size=4, eval_batch_size=4, eval_every=2, save_every=2,
    )
"""


def test_bad_pictures_are_all_listed_and_nothing_else_is_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "pets.py").write_text(PETS)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(np.full((6, 6), 40 * number, np.uint8)).save(tmp_path / "pets" / name / f"{number}.png")
    (tmp_path / "pets" / "cat" / "empty.png").touch()
    (tmp_path / "pets" / "dog" / "page.png").write_text("<html>")
    refused = call("--experiment=pets.py", "--workdir=run")
    assert refused.code == 2, refused.said
    assert "first of 2 bad images of 12" in error_line(refused)
    assert "run/bad_inputs.csv" in error_line(refused)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["bad_inputs.csv"]
    with open(tmp_path / "run" / "bad_inputs.csv", newline="") as file:
        listed = [(Path(row["file"]).name, row["reason"]) for row in csv.DictReader(file)]
    assert listed == [("empty.png", "it is empty"), ("page.png", "it is an HTML page")]

    skipped = call("--experiment=pets.py", "--workdir=run", "--set=data.on_bad=skip", "--notest")
    assert skipped.code == 0, skipped.said
    assert "2 of 12 images are bad and left out" in skipped.said
    data = summary(tmp_path / "run")["data"]
    assert data["train_examples"] + data["test_examples"] == 10
    with open(tmp_path / "run" / "bad_inputs.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
