"""The run directory: odd names, strangers in it, what a resume may change, and which run is the newest. By the command line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import jax
import numpy as np
import pytest
from forked import Command
from PIL import Image
from small import summary

from fdl import files
from fdl.checkpoint import manifest, saving
from fdl.rundir import config as run_config
from fdl.rundir import logs, workdir
from fdl.train.progress import Progress
from fdl.types import RunError, UserError

SMALL = [
    "--experiment=digits_cnn", "--set=model.filters=4", "--set=model.dense=8", "--set=data.feed=numpy", "--set=batch_size=32",
    "--set=save_every=10", "--set=eval_every=10", "--set=log_every=10", "--noreport",
]  # fmt: skip


def edit_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    held = json.loads((path / "config.json").read_text())
    change(held)
    (path / "config.json").write_text(json.dumps(held))


@pytest.fixture(scope="module")
def home(run_fdl: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 20 steps of 40: "run"."""
    folder = tmp_path_factory.mktemp("home")
    run_fdl(folder, *SMALL, "--set=steps=20", "--workdir=run")
    return folder


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may spoil."""
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a[1]b", "q?x*", "[!a]", "größe 猫 [🐈]"])
def test_a_step_saved_under_glob_characters_is_read_again(tmp_path: Path, name: str) -> None:
    root = tmp_path / name / "checkpoints"
    state = {"params": {"w": jax.numpy.arange(12.0).reshape(3, 4)}, "step": jax.numpy.int32(7)}
    with saving.saver(root) as save:
        save(7, state, {"best_step": None})
    saved = manifest.latest(root)
    assert saved is not None
    restored = saving.restore(saved, state)
    np.testing.assert_array_equal(restored["params"]["w"], state["params"]["w"])


def test_a_step_that_cannot_be_opened_again_is_not_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:  # in place of Orbax's: it says nothing, and leaves no arrays
        def save(self, path: Path, args: Any) -> None:
            path.mkdir()

        def wait_until_finished(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr("orbax.checkpoint.AsyncCheckpointer", lambda handler: Writer())
    with pytest.raises(RunError, match="could not be saved"), saving.saver(tmp_path) as save:
        save(1, {"w": jax.numpy.ones(3)}, {"best_step": None})
    assert manifest.latest(tmp_path) is None


def test_a_run_of_a_file_with_brackets_is_found_resumed_and_used(run_fdl: Command, tmp_path: Path) -> None:
    text = "from experiments.digits_cnn import experiment\n"
    for name in ("cats[v2].py", "cats.py"):
        (tmp_path / name).write_text(text)
    flags = [flag for flag in SMALL if not flag.startswith("--experiment")]
    run_fdl(tmp_path, "--experiment=cats[v2].py", *flags, "--set=steps=10")
    run_fdl(tmp_path, "--experiment=cats.py", *flags, "--set=steps=10")
    (path,) = (path for path in (tmp_path / "runs").iterdir() if "[v2]" in path.name)
    said = run_fdl(tmp_path, "--experiment=cats[v2].py", *flags[:-1], "--set=steps=10", "--mode=eval").stderr
    assert f"run: runs/{path.name}, step 10" in said
    resumed = run_fdl(tmp_path, "--experiment=cats[v2].py", *flags, "--set=steps=20", f"--workdir={path}")
    assert "resumed at step 10 of 20" in resumed.stdout


def test_files_called_like_a_library_break_nothing(tmp_path: Path) -> None:
    for name in ("json", "random", "csv", "signal"):
        (tmp_path / f"{name}.py").write_text("from experiments.digits_cnn import experiment\n")
    shown = forked.run_in_shell(tmp_path, "--experiment=json.py", "--show").stdout
    assert "batch_size = 64" in shown


def test_the_newest_run_is_the_one_begun_last_of_that_very_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def make(folder: str, experiment: str, started: str) -> None:
        path = tmp_path / "runs" / folder
        (path / "checkpoints").mkdir(parents=True)
        held = {"experiment": experiment, "settings": {}, "seed": 0, "command": "", "started": started}
        (path / "config.json").write_text(json.dumps(held))

    make("mine-1", "mine", "2026-01-02T00:00:00")
    make("renamed", "mine", "2026-01-03T00:00:00")
    make("mine-0", "mine", "2026-01-01T00:00:00")  # written last, as a copy may be
    make("mine-big-1", "mine-big", "2026-02-01T00:00:00")
    (tmp_path / "runs" / "mine-damaged" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "mine-damaged" / "config.json").write_text("{")
    assert workdir.newest("mine").name == "renamed"
    assert workdir.newest("mine-big").name == "mine-big-1"
    with pytest.raises(UserError, match="no trained run of min under"):
        workdir.newest("min")


# ---- strangers ------------------------------------------------------------------------------------------------------


def test_what_fdl_did_not_write_takes_nothing_away_and_is_kept(run_fdl: Command, run: Path) -> None:
    root = run / "checkpoints"
    for folder in [path for path in [run, *run.rglob("*")] if path.is_dir()]:
        for name in ("desktop.ini", "Thumbs.db", ".DS_Store", "Icon\r", "notes.txt"):
            (folder / name).write_text("a stranger")
    shutil.copytree(root / "20", root / "20.backup")
    shutil.copytree(root / "10", root / "good ones" / "10")
    (root / "2024").mkdir()
    (root / "2024" / "diary.txt").write_text("mine")
    (root / "15" / "state.orbax-checkpoint-tmp").mkdir(parents=True)  # an interrupted save
    (root / "16").mkdir()
    done = run_fdl(run.parent, *SMALL, "--set=steps=30", "--workdir=run")
    assert "resumed at step 20 of 30" in done.stdout
    assert done.stderr == "" or "learning rate" in done.stderr
    assert {"20.backup", "good ones", "2024", "30", "20", "notes.txt"} <= {path.name for path in root.iterdir()}
    assert (root / "2024" / "diary.txt").read_text() == "mine"
    assert not (root / "15").exists()
    assert not (root / "16").exists()


def test_a_copy_under_another_number_is_not_taken_for_that_step(run: Path) -> None:
    shutil.copytree(run / "checkpoints" / "20", run / "checkpoints" / "99")
    found = manifest.latest(run / "checkpoints")
    assert found is not None
    assert found.step == 20


def test_a_folder_in_the_way_of_a_step_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "diary.txt").write_text("mine")
    with pytest.raises(RunError, match="in the way of a checkpoint"), saving.saver(tmp_path) as save:
        save(5, {"w": jax.numpy.ones(3)}, {"best_step": None})
    assert (tmp_path / "5" / "diary.txt").read_text() == "mine"


def test_a_best_checkpoint_that_was_deleted_is_said_at_the_start_and_the_next_best_is_used(run: Path) -> None:
    root = run / "checkpoints"
    # As after an evaluation at step 30 that was worse than that at 20, which was better than that at 10.
    shutil.copytree(root / "20", root / "30")
    held = json.loads((root / "30" / "manifest.json").read_text())
    manifest.seal(root / "30", held | {"step": 30})
    shutil.rmtree(root / "20")
    newest = manifest.latest(root)
    assert newest is not None
    assert newest.progress["best_step"] == 20
    assert manifest.best(root, newest).step == 10
    changed = manifest.known_best(root, newest)
    assert changed["best_step"] == 10
    assert changed["best"] == json.loads((root / "10" / "manifest.json").read_text())["progress"]["best"]
    shutil.rmtree(root / "10")
    assert manifest.best(root, newest).step == 30
    assert manifest.known_best(root, newest) == {"best_step": None, "best": None}


def test_a_checkpoint_that_goes_away_while_it_is_read_is_answered_by_the_next(tmp_path: Path) -> None:
    state = {"w": jax.numpy.ones(3)}
    with saving.saver(tmp_path, keep=5) as save:
        for step in (1, 2):
            save(step, {"w": jax.numpy.full(3, float(step))}, {"best_step": None})
    chosen = iter([manifest.at_step(tmp_path, 1), manifest.at_step(tmp_path, 2)])

    def choose() -> manifest.Saved:
        found = next(chosen)
        assert found is not None
        if found.step == 1:
            shutil.rmtree(tmp_path / "1")  # as the run that trains does
        return found

    restored, saved = saving.restore_chosen(choose, state)
    assert saved.step == 2
    np.testing.assert_array_equal(restored["w"], [2, 2, 2])


# ---- resumes --------------------------------------------------------------------------------------------------------


def test_fewer_steps_than_were_made_are_refused_and_another_length_is_warned_of(run_fdl: Command, run: Path) -> None:
    before = (run / "config.json").read_bytes()
    refused = run_fdl(run.parent, *SMALL, "--set=steps=10", "--workdir=run", code=2)
    assert "has made 20 steps, more than the 10 of steps=10" in refused.stderr
    assert (run / "config.json").read_bytes() == before
    longer = run_fdl(run.parent, *SMALL, "--set=steps=40", "--workdir=run")
    assert "laid out over 20 steps and is now read at step 20 of 40" in longer.stderr
    assert summary(run)["steps"] == 40


def test_changed_code_is_refused_though_a_permitted_setting_was_changed_too(
    run_fdl: Command, run: Path, tmp_path: Path
) -> None:
    """The digest that the run was begun with is another one's, as it is when the code has changed since."""
    edit_config(run, lambda held: held.update(program_sha256="0" * 64))
    refused = run_fdl(run.parent, *SMALL, "--set=steps=40", "--set=on_bad_step=skip", "--workdir=run", code=2)
    assert "its code was changed" in refused.stderr


def test_permitted_settings_alone_are_no_change_of_code(run_fdl: Command, run: Path) -> None:
    changed = ("--set=steps=30", "--set=on_bad_step=skip", "--set=loss_limit=1000", "--set=data.on_bad=skip")
    done = run_fdl(run.parent, *SMALL, *changed, "--workdir=run")
    assert "resumed at step 20 of 30" in done.stdout
    again = run_fdl(run.parent, *SMALL, *changed, "--workdir=run")  # held against what the resume has written
    assert "resumed at step 30 of 30" in again.stdout


@pytest.mark.parametrize("key", ["versions", "data", "program_sha256", "mesh", "settings", "seed", "experiment"])
def test_a_config_that_lacks_something_is_one_line(run: Path, key: str) -> None:
    edit_config(run, lambda held: held.pop(key))

    def go_on() -> None:
        before = run_config.read_config(run)
        assert before is not None
        run_config.resume(run, before, before | {"bits_decided_by": []}, False, lambda: "")

    with pytest.raises(UserError, match=rf"config.json lacks '{key}'"):
        go_on()


def test_pillow_decides_the_bits_of_pictures_that_are_decoded_batch_by_batch(run: Path) -> None:
    before = run_config.read_config(run)
    assert before is not None
    other = before | {"versions": before["versions"] | {"pillow": "0.1"}}
    assert run_config.resume(run, before, other, False, lambda: before["program_sha256"])
    lazy = other | {"bits_decided_by": [*other["bits_decided_by"], "pillow"]}
    with pytest.raises(UserError, match=r"pillow was .*, is 0\.1"):
        run_config.resume(run, before, lazy, False, lambda: before["program_sha256"])


def test_early_stopping_without_a_validation_split_is_warned_of(run_fdl: Command, tmp_path: Path) -> None:
    flags = ("--set=steps=10", "--set=data.validation=0", "--set=patience=1", "--set=stop_at=0.5", "--workdir=run")
    done = run_fdl(tmp_path, *SMALL, *flags)
    assert "patience and stop_at would look at a validation split, and digits has none" in done.stderr
    assert "data.validation=10%" in done.stderr


def test_batch_norm_over_a_batch_of_one_is_warned_of(run_fdl: Command, tmp_path: Path) -> None:
    one = run_fdl(tmp_path, *SMALL, "--set=batch_size=1", "--set=steps=2", "--workdir=one")
    assert "batch_size=1: BatchNorm (dense1_norm)" in one.stderr
    without = run_fdl(
        tmp_path, *SMALL, "--set=batch_size=1", "--set=model.batch_norm=false", "--set=steps=2", "--workdir=b"
    )
    assert "BatchNorm" not in without.stderr


NUMPY_STEP = """
import dataclasses, jax, numpy as np
from flax import linen as nn
from experiments.digits_cnn import experiment as base
from fdl.numpy_call import numpy_call

def scaled(x):
    return x * np.float32(FACTOR)

class Scaled(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x, train=False):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return self.inner(numpy_call(scaled, like, jax.lax.stop_gradient(x)), train=train)

def experiment():
    plain = base()
    model = Scaled(plain.model.clone(filters=(4,), dense=(8,)))
    return dataclasses.replace(plain, model=model, steps="10", save_every="10", eval_every="10")
"""


def test_a_changed_numpy_function_is_changed_code(run_fdl: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(NUMPY_STEP.replace("FACTOR", "2.0"))
    flags = ("--experiment=mine.py", "--workdir=run", "--noreport")
    run_fdl(tmp_path, *flags)
    run_fdl(tmp_path, *flags, "--set=steps=20")
    file.write_text(NUMPY_STEP.replace("FACTOR", "3.0"))
    refused = run_fdl(tmp_path, *flags, "--set=steps=20", code=2)
    assert "its code was changed" in refused.stderr


# ---- the run without its data, and with other data ------------------------------------------------------------------

PETS = """
from functools import partial
from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification

def experiment():
    return Experiment(
        data=Data(load=partial(sources.folder, path="pets", size=(8, 8)), prepare=(ops.Standardize(),)),
        model=MLP(widths=(8,)), task=Classification(), optimizer=Optimizer(learning_rate=0.01), steps=20, batch_size=8,
        eval_batch_size=8, save_every=20, eval_every=20,
    )
"""


def draw_pets(folder: Path, names: dict[str, tuple[int, int, int]], count: int = 8, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, colour in names.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(0, 60, (8, 8, 3))
            Image.fromarray((np.array(colour) * 0.7 + noise).astype(np.uint8)).save(folder / name / f"{number:03}.png")


def test_predictions_and_exports_need_the_run_alone_and_an_evaluation_the_same_data(
    run_fdl: Command, tmp_path: Path
) -> None:
    colours = {"cat": (200, 0, 0), "dog": (0, 200, 0), "owl": (0, 0, 200)}
    draw_pets(tmp_path / "pets", colours)
    (tmp_path / "mine.py").write_text(PETS)
    flags = ("--experiment=mine.py", "--workdir=run")
    run_fdl(tmp_path, *flags, "--noreport")
    shutil.copytree(tmp_path / "pets" / "dog", tmp_path / "photos")

    def predicted(out: str) -> str:
        run_fdl(tmp_path, *flags, "--mode=predict", "--input=photos", f"--output={out}")
        return (tmp_path / out / "predictions.csv").read_text()

    here = predicted("with")
    assert "dog" in here
    before = json.loads(run_fdl(tmp_path, *flags, "--mode=eval").stdout)
    # A class folder renamed: the names' order is another one.
    (tmp_path / "pets" / "cat").rename(tmp_path / "pets" / "zebra")
    assert predicted("renamed") == here
    refused = run_fdl(tmp_path, *flags, "--mode=eval", code=2)
    assert "the class names were cat, dog, owl, are dog, owl, zebra" in refused.stderr
    assert refused.stdout == ""
    # Other pictures: prepared by the statistics of those it was trained with, and only when that is asked for.
    shutil.rmtree(tmp_path / "pets")
    draw_pets(tmp_path / "pets", colours, seed=1)
    refused = run_fdl(tmp_path, *flags, "--mode=eval", code=2)
    assert "was trained with other data: the data was" in refused.stderr
    accepted = run_fdl(tmp_path, *flags, "--mode=eval", "--accept_changes")
    assert json.loads(accepted.stdout).keys() == before.keys()
    # None at all, as where a run was copied to.
    shutil.rmtree(tmp_path / "pets")
    assert predicted("without") == here
    run_fdl(tmp_path, *flags, "--mode=export")
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert run_fdl(tmp_path, *flags, "--mode=eval", code=2).stdout == ""


# ---- what other programs read ---------------------------------------------------------------------------------------


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON (RFC 8259)")


def test_numbers_that_are_not_finite_are_null_in_every_file_and_numbers_again_when_read(tmp_path: Path) -> None:
    row = {"step": 1, "train/loss": 2.5, "eval/perplexity": math.inf, "eval/other": math.nan}
    with logs.writer(tmp_path, -1) as write:
        write(row)
    line = (tmp_path / "metrics.jsonl").read_text()
    expected = {"step": 1, "train/loss": 2.5, "eval/perplexity": None, "eval/other": None}
    assert json.loads(line, parse_constant=no_constant) == expected
    (back,) = logs.read_rows(tmp_path)
    assert back["train/loss"] == 2.5
    assert math.isnan(back["eval/perplexity"])
    files.write_json(
        tmp_path / "summary.json", {"metrics": {"a": -math.inf}, "deep": [{"b": math.nan}, (1.0, math.inf)]}
    )
    held = json.loads((tmp_path / "summary.json").read_text(), parse_constant=no_constant)
    assert held == {"metrics": {"a": None}, "deep": [{"b": None}, [1.0, None]]}
    assert math.isnan(logs.read_summary(tmp_path)["metrics"]["a"])
    (tmp_path / "9").mkdir()
    manifest.seal(tmp_path / "9", {"step": 9, "files": {}, "leaves": {}, "progress": {"row": row}})
    saved = manifest.at_step(tmp_path, 9)
    assert saved is not None, "its digest is over what was written"
    assert math.isnan(Progress.from_json(saved.progress).row["eval/perplexity"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(math.inf, "inf"), (8.752183e141, "8.752e+141"), (math.nan, "nan"), (5695.4, "5,695"), (0.25, "0.25")],
)
def test_a_number_for_a_person_is_short(value: float, shown: str) -> None:
    assert logs.short(value) == shown
