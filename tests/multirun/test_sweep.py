"""A sweep: what it tries, what it ends early, what it leaves, and what it does when something goes wrong."""

from __future__ import annotations

import builtins
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")

from experiments import digits_cnn, fashion_mlp
from fdl.data import Request
from fdl.experiment import Experiment, settings, show, tuning
from fdl.experiment.tuning import Choice, Int, Log, Search, Uniform
from fdl.multirun import sampling, spawn, sweep, trials
from fdl.multirun.trials import Trial
from fdl.multirun.workers import SweepSpec
from fdl.types import RunError, UserError

ROOT = Path(__file__).resolve().parents[2]
SPACE: dict[str, tuning.Dimension] = {
    "optimizer.learning_rate": Log(1e-4, 1e-1),
    "model.dropout": Uniform(0, 0.5),
    "model.filters": Choice(("8,8", "32,64")),
    "batch_size": Int(16, 256, log=True),
}


def order(space: Mapping[str, tuning.Dimension] = SPACE, seed: int = 0, **rules: Any) -> SweepSpec:
    experiment = digits_cnn.experiment()
    shown = {path: show(value) for path, value in settings(experiment)}
    return SweepSpec(
        name="digits_cnn", experiment=experiment, overrides=(), settings=shown, search=Search(space, **rules), seed=seed
    )


def goodness(values: Mapping[str, Any]) -> float:
    """0 to 1, the best at a learning rate of 0.01."""
    return 1 / (1 + abs(math.log10(float(values["optimizer.learning_rate"]) / 0.01)))


class Runner:
    """In place of `spawn.run`: a run that learns at once, by a curve that its settings alone decide."""

    def __init__(self, curve: Callable[[Mapping[str, str], int], float] | None = None):
        self.curve = curve or (lambda values, percent: goodness(values) * percent / 100)
        self.ended: list[str] = []  # the runs that went to their end
        self.calls: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []

    def __call__(
        self, name: str, path: Path, *, seed: int, overrides: Any, flags: Any, between: Any = None, **_: Any
    ) -> Any:
        self.calls.append((path.name, tuple(overrides), tuple(flags)))
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(
            json.dumps({"experiment": name, "total_steps": 200, "overrides": list(overrides)})
        )
        values = dict(text.split("=") for text in overrides)
        for step in (40, 80, 200):
            row = {"step": step, "train/loss": 1.0, "eval/accuracy": self.curve(values, step // 2)}
            if between and between([row]):
                return {"status": "stopped"}
        self.ended.append(path.name)
        metrics = {"eval/accuracy": self.curve(values, 100)} | ({} if "--notest" in flags else {"test/accuracy": 0.75})
        return {
            "status": "complete", "metrics": metrics, "data": {"name": "made"}, "state_sha256": "", "devices": [],
            "baselines": {"majority class": {"test/accuracy": 0.1}},
        }  # fmt: skip


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(spawn, "run", made)
    return made


def tune(folder: Path, what: SweepSpec, count: int, at_once: int = 1) -> dict[str, Any]:
    return sweep.tune(folder, what, count, at_once, lambda: 0)


def tried(folder: Path, what: SweepSpec) -> list[Trial]:
    return trials.trials(trials.open_store(folder, sampling.SearchRules(what.search, "max", what.seed)))


def told(found: list[Trial]) -> list[tuple[Any, ...]]:
    """All of the trials but what a clock decides."""
    return [(t.number, t.state, dict(t.values), t.value, dict(t.reported), t.reason) for t in found]


# ---- what is declared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (None, "has no function search"),
        (lambda: 3, "returned int, not a Search"),
        (lambda: Search({}), "one setting at least"),
        (lambda: Search({"batch_size": (1, 2)}), "expected Uniform, Log, Int or Choice, got tuple"),  # type: ignore[dict-item]
        (lambda: Search({"batch_size": Int(64, 16)}), "the smaller first"),
        (lambda: Search({"batch_size": Int(1, 2.5)}), "whole numbers"),  # type: ignore[arg-type]
        (lambda: Search({"batch_size": Int(0, 8, log=True)}), "above 0"),
        (lambda: Search({"model.dropout": Log(0, 0.5)}), "above 0"),
        (lambda: Search({"model.dropout": Uniform(0, math.nan)}), "two finite numbers"),
        (lambda: Search({"model.filters": Choice(("8",))}), "two or more"),
        (lambda: Search({"model.filters": Choice("8,16")}), "give a tuple"),  # type: ignore[arg-type]
        (lambda: Search(SPACE, sampler="grid"), "'grid' is none of tpe, random"),  # type: ignore[arg-type]
        (lambda: Search(SPACE, trials=0), "trials=0"),
        (lambda: Search({"model.dropuot": Uniform(0, 1)}), "the nearest is model.dropout"),
        (lambda: Search({"model.dropout": Uniform(0, 2)}), "model.dropout=2"),
        (lambda: Search({"batch_size": Int(0, 64)}), "batch_size=0"),
        (lambda: Search({"batch_size": Uniform(16, 64.5)}), "batch_size=64.5"),
        (lambda: Search({"model.filters": Choice(("8,8", "8,x"))}), "model.filters=8,x"),
    ],
)
def test_a_wrong_search_is_one_line_that_names_the_file(make: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        tuning.load_search(make, digits_cnn.experiment(), "mine.py")
    assert says in str(error.value)
    assert str(error.value).startswith("mine.py")
    assert "\n" not in str(error.value)


def test_a_searched_setting_cannot_be_set_as_well() -> None:
    with pytest.raises(UserError, match=r"the sweep itself varies batch_size"):
        tuning.load_search(lambda: Search(SPACE), digits_cnn.experiment(), "mine.py", ["steps=9", "batch_size=32"])


def test_the_search_of_fashion_mlp_begins_with_its_recipe() -> None:
    search = tuning.load_search(fashion_mlp.search, fashion_mlp.experiment(), "fashion_mlp.py")
    assert tuning.own_values(search, fashion_mlp.experiment()) == {
        "optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 1e-2, "model.dropout": 0.1, "model.widths": "1024,512",
        "task.label_smoothing": 0.05,
    }  # fmt: skip


def test_a_recipe_outside_the_space_is_not_the_first_trial() -> None:
    assert tuning.own_values(Search({"batch_size": Int(65, 99)}), digits_cnn.experiment()) is None
    assert tuning.own_values(Search({"model.filters": Choice(("1,1", "2,2"))}), digits_cnn.experiment()) is None
    choice = Choice((("32", "64"), "(2, 2)"))  # other ways of writing the same
    assert tuning.own_values(Search({"model.filters": choice}), digits_cnn.experiment()) == {"model.filters": "32,64"}


def test_without_a_validation_split_nothing_can_be_chosen() -> None:
    experiment = digits_cnn.experiment()
    sweep.check_validation(experiment, Request())
    bare = tuning.override(experiment, "data.validation=0")
    with pytest.raises(UserError, match=r"no validation split.*--set data\.validation=1000"):
        sweep.check_validation(bare, Request())


def test_without_optuna_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError("No module named 'optuna'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(UserError, match=r"needs Optuna.*pip install 'optuna"):
        sampling.import_optuna()


# ---- what is tried --------------------------------------------------------------------------------------------------


def test_the_first_is_the_experiment_itself_and_all_are_in_the_space(tmp_path: Path, runner: Runner) -> None:
    what = order(pruner="none")
    tune(tmp_path, what, 8)
    found = tried(tmp_path, what)
    assert dict(found[0].values) == tuning.own_values(what.search, what.experiment)
    for trial in found:
        assert 1e-4 <= trial.values["optimizer.learning_rate"] <= 1e-1
        assert float(f"{trial.values['optimizer.learning_rate']:.4g}") == trial.values["optimizer.learning_rate"]
        assert 0 <= trial.values["model.dropout"] <= 0.5
        assert trial.values["model.filters"] in ("8,8", "32,64")
        assert trial.values["batch_size"] in range(16, 257)
    assert len({json.dumps(trial.values) for trial in found}) == 8
    assert {flags for name, _, flags in runner.calls if name != "best"} == {("--notest", "--noreport")}
    assert [name for name, *_ in runner.calls] == [f"{number:04}" for number in range(8)] + ["best"]


def test_the_sequence_is_a_function_of_the_seed_and_the_results(tmp_path: Path, runner: Runner) -> None:
    what = order()
    tune(tmp_path / "one", what, 8)
    for count in (2, 7, 8):  # in three goes
        tune(tmp_path / "two", what, count)
    assert told(tried(tmp_path / "one", what)) == told(tried(tmp_path / "two", what))


def proposed(sampler: Any, seed: int, sign: int, count: int) -> list[float]:
    """What is tried one after another where the value is the setting itself, or its negative."""
    import optuna

    rules = sampling.SearchRules(Search({"optimizer.learning_rate": Log(1e-4, 1e-1)}, sampler=sampler), "max", seed)
    past: list[Any] = []
    for _ in range(count):
        values = sampling.suggest(rules, past)
        rate = values["optimizer.learning_rate"]
        found = optuna.trial.create_trial(
            value=sign * rate, params=values, distributions=sampling.distributions(rules.search)
        )
        past.append(found)
    return [trial.params["optimizer.learning_rate"] for trial in past]


def test_tpe_goes_where_the_good_ones_are_and_random_does_not() -> None:
    assert proposed("random", 0, 1, 20) == proposed("random", 0, -1, 20)
    assert proposed("tpe", 0, 1, sampling.STARTUP) == proposed("tpe", 0, -1, sampling.STARTUP)
    up, down = (sorted(proposed("tpe", 0, sign, 20)[10:])[5] for sign in (1, -1))
    assert up > 0.02 > 0.001 > down


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_another_seed_tries_other_things(sampler: Any) -> None:
    assert proposed(sampler, 0, 1, 8) == proposed(sampler, 0, 1, 8)
    assert not set(proposed(sampler, 0, 1, 8)) & set(proposed(sampler, 1, 1, 8))


# ---- what is ended early --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_a_bad_trial_is_ended_and_says_what_it_had_reached(
    tmp_path: Path, runner: Runner, capsys: pytest.CaptureFixture[str], pruner: Any
) -> None:
    what = order(pruner=pruner)
    summary = tune(tmp_path, what, 12)
    found = tried(tmp_path, what)
    pruned = [trial for trial in found if trial.state == "pruned"]
    whole = [trial for trial in found if trial.state == "complete"]
    assert len(pruned) >= 2
    assert len(whole) >= 2
    assert summary["trials"] == {"complete": len(whole), "pruned": len(pruned)}
    for trial in pruned:
        last = max(trial.reported)
        assert last < 100
        assert trial.value == trial.reported[last]
        assert f"trial {trial.number}: pruned at {last} % with eval/accuracy" in capsys_text(capsys, tmp_path)
    assert set(runner.ended) == {f"{trial.number:04}" for trial in whole} | {"best"}


def capsys_text(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """All that was printed so far."""
    kept = folder / ".printed"
    text = (kept.read_text() if kept.exists() else "") + capsys.readouterr().out
    kept.write_text(text)
    return text


def test_successive_halving_keeps_a_third_at_each_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the definition (Li et al. 2018, algorithm 2), from the values as they came in, best first and then worse."""
    what = order({"optimizer.learning_rate": Log(1e-4, 1e-1)}, sampler="random")
    monkeypatch.setattr(spawn, "run", Runner())
    tune(tmp_path, what, 15)
    rungs: dict[int, list[float]] = {12: [], 36: []}
    for trial in tried(tmp_path, what):
        alive = True
        for rung, seen in rungs.items():
            if alive:
                value = goodness(trial.values) * (20 if rung == 12 else 40) / 100  # the first evaluation after it
                seen.append(value)
                alive = value >= sorted(seen)[-max(1, len(seen) // 3)]
        assert (trial.state == "complete") == alive, trial


def test_no_pruner_ends_nothing(tmp_path: Path, runner: Runner) -> None:
    assert tune(tmp_path, order(pruner="none"), 6)["trials"] == {"complete": 6}


def test_less_can_be_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lower(type(digits_cnn.experiment().task)):  # type: ignore[misc]
        better = "min"

    what = order()
    worse = Experiment(data=what.experiment.data, model=what.experiment.model, task=Lower(), name="any")
    what = SweepSpec(name="any", experiment=worse, overrides=(), settings={}, search=what.search)
    monkeypatch.setattr(spawn, "run", Runner(lambda values, percent: 1 - goodness(values) * percent / 100))
    best = tune(tmp_path, what, 8)["best"]
    assert best["value"] == min(t.value for t in tried(tmp_path, what) if t.state == "complete" and t.value is not None)


def test_between_two_rungs_no_other_trial_is_looked_at_and_finished_ones_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    rows: list[int] = []
    real = optuna.storages.RDBStorage._get_trials

    def counted(self: Any, *args: Any, **rest: Any) -> Any:
        found = real(self, *args, **rest)
        rows.append(len(found))
        return found

    monkeypatch.setattr(optuna.storages.RDBStorage, "_get_trials", counted)
    asked: list[int] = []
    decide = sampling.should_prune
    monkeypatch.setattr(
        sampling, "should_prune", lambda rules, found, number: asked.append(number) or decide(rules, found, number)
    )
    what = order({"optimizer.learning_rate": Log(1e-4, 1e-1)}, sampler="random")
    store = trials.open_store(tmp_path, sampling.SearchRules(what.search, "max", 0))
    for number in range(30):
        taken = trials.next_trial(store, 100, None, lambda number: number)
        assert taken is not None
        for percent in range(5, 100, 5):
            trials.report(store, number, percent, percent * goodness(taken[0].values))
        trials.finish(store, number, goodness(taken[0].values))
    assert asked.count(29) <= 2
    assert set(rows) <= {0, 1, 2}, "a finished trial was read again"
    assert [trial.state for trial in trials.trials(store)] == ["complete"] * 30


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_leaving_out_what_is_between_two_rungs_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: Any
) -> None:
    """The pruners are asked at every report, and say the same."""
    what, ends = order({"optimizer.learning_rate": Log(1e-4, 1e-1)}, sampler="random", pruner=pruner), []
    for name, every in (("some", False), ("all", True)):
        with monkeypatch.context() as patch:
            if every:
                patch.setattr(sampling, "rungs", lambda rules: range(1, 101))
            folder = tmp_path / name
            folder.mkdir()
            store = trials.open_store(folder, sampling.SearchRules(what.search, "max", 0))
            for number in range(24):
                taken = trials.next_trial(store, 100, None, lambda number: number)
                assert taken is not None
                for percent in (3, 4, 7, 11, 13, 20, 35, 36, 40, 80, 99):
                    if trials.report(store, number, percent, percent * goodness(taken[0].values)):
                        trials.prune(store, number)
                        break
                else:
                    trials.finish(store, number, goodness(taken[0].values))
            ends.append(told(trials.trials(store)))
    assert ends[0] == ends[1]
    assert {state for _, state, *_ in ends[0]} == {"pruned", "complete"}


def test_a_trial_that_has_made_all_its_steps_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows were judged when it was over: a fast trial's always are."""
    made = Runner()

    def run(name: str, path: Path, between: Any = None, **rest: Any) -> Any:
        done = made(name, path, **rest)
        rows = [
            {"step": step, "eval/accuracy": done["metrics"]["eval/accuracy"] * step / 200} for step in (40, 80, 200)
        ]
        if between:
            between(rows)
        return done

    monkeypatch.setattr(spawn, "run", run)
    what = order({"optimizer.learning_rate": Log(1e-4, 1e-1)}, sampler="random")
    summary = tune(tmp_path, what, 8)
    assert summary["trials"] == {"complete": 8}
    found = tried(tmp_path, what)
    assert [trial.value for trial in found] == [pytest.approx(goodness(trial.values)) for trial in found]
    assert min(len(trial.reported) for trial in found) < 3, "none was to be pruned, so this shows nothing"


def test_the_checkpoints_of_trials_that_are_not_the_best_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Runner()

    def run(name: str, path: Path, **rest: Any) -> Any:
        saved = path / "checkpoints" / "40"
        saved.mkdir(parents=True)
        (saved / "state").write_bytes(b"x" * 1000)
        if path.name == "0003":
            raise RunError("the loss is not finite")
        return made(name, path, **rest)

    monkeypatch.setattr(spawn, "run", run)
    what = order(pruner="asha")
    best = tune(tmp_path, what, 8)["best"]["trial"]
    kept = [path.parent.name for path in (tmp_path / "trials").glob("*/checkpoints") if any(path.iterdir())]
    assert kept == [f"{best:04}"]
    assert len(list((tmp_path / "trials").glob("*/config.json"))) == 7
    assert any((tmp_path / "best" / "checkpoints").iterdir())


# ---- what is left ---------------------------------------------------------------------------------------------------


def test_the_summary_the_lines_and_the_page(tmp_path: Path, runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    what = order(pruner="none")
    summary = tune(tmp_path, what, 9)
    found = tried(tmp_path, what)
    best = max(found, key=lambda trial: trial.value or 0)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["best"]["trial"] == best.number
    assert summary["best"]["value"] == best.value
    assert summary["best"]["overrides"] == [f"{name}={value}" for name, value in best.values.items()]
    for text in summary["best"]["overrides"]:
        assert f"--set={text}" in summary["best"]["command"]
    assert "--notest" not in summary["best"]["command"]
    assert summary["metrics"]["test/accuracy"] == 0.75
    out = capsys.readouterr().out
    assert out.count("test/accuracy") == 1
    assert [
        line.split(":")[0] for line in out.splitlines() if line.startswith("trial ") and "is the best" not in line
    ] == [f"trial {number}" for number in range(9)]
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Trials",
        "Where the good ones lie",
        "What mattered",
        "Every trial",
        "test accuracy",
        "optimizer.learning_rate=",
    ):
        assert words in page
    assert "could not be drawn" not in page
    assert page.count("data:image/") == 3


def test_few_trials_say_nothing_about_what_mattered(tmp_path: Path, runner: Runner) -> None:
    tune(tmp_path, order(), 2)
    assert "cannot be told from" in (tmp_path / "report.html").read_text()


def test_done_is_done(tmp_path: Path, runner: Runner) -> None:
    first = tune(tmp_path, order(), 3)
    calls = len(runner.calls)
    assert tune(tmp_path, order(), 3) == first
    assert len(runner.calls) == calls


def test_more_trials_may_find_a_better_one(tmp_path: Path, runner: Runner) -> None:
    what = order({"optimizer.learning_rate": Log(1e-4, 1e-1)}, pruner="none", sampler="random", seed=2)
    first = tune(tmp_path, what, 1)["best"]
    later = tune(tmp_path, what, 12)["best"]
    assert later["trial"] != first["trial"]
    assert json.loads((tmp_path / "best" / "config.json").read_text())["overrides"] == later["overrides"]
    assert json.loads((tmp_path / "best.1" / "config.json").read_text())["overrides"] == first["overrides"]


def test_another_sweeps_directory_and_a_folder_of_other_things_are_left_alone(tmp_path: Path, runner: Runner) -> None:
    tune(tmp_path / "mine", order(), 2)
    with pytest.raises(UserError, match=r"holds another sweep: seed was 0, is 1"):
        tune(tmp_path / "mine", order(seed=1), 2)
    with pytest.raises(UserError, match=r"pruner was asha, is none"):
        tune(tmp_path / "mine", order(pruner="none"), 2)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("")
    with pytest.raises(UserError, match=r"not empty \(it holds chapter\.txt\)"):
        tune(tmp_path / "thesis", order(), 2)
    with pytest.raises(UserError, match="Not a directory"):
        tune(tmp_path / "thesis" / "chapter.txt", order(), 2)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_failed_trial_is_noted_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Runner()

    def run(name: str, path: Path, **rest: Any) -> Any:
        if path.name in ("0001", "0003"):
            raise RunError("the loss of step 7 is not finite (a.log)")
        return made(name, path, **rest)

    monkeypatch.setattr(spawn, "run", run)
    what = order(pruner="none")
    summary = tune(tmp_path, what, 5)
    assert summary["trials"] == {"complete": 3, "failed": 2}
    assert tried(tmp_path, what)[1].reason == "the loss of step 7 is not finite (a.log)"
    assert "trial 3: failed: the loss of step 7 is not finite" in capsys.readouterr().out


def test_a_value_that_is_no_number_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "run", Runner(lambda values, percent: math.nan))
    with pytest.raises(RunError, match=r"no trial came to its end.*eval/accuracy is nan"):
        tune(tmp_path, order(pruner="none"), 2)


def test_refused_input_ends_the_sweep_and_its_trial_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, broken = Runner(), [True]

    def run(name: str, path: Path, **rest: Any) -> Any:
        if path.name == "0002" and broken:
            raise UserError("the rows have gone")
        return made(name, path, **rest)

    monkeypatch.setattr(spawn, "run", run)
    what = order(pruner="none")
    with pytest.raises(UserError, match="the rows have gone"):
        tune(tmp_path, what, 4)
    assert [trial.state for trial in tried(tmp_path, what)] == ["complete", "complete", "running"]
    left = dict(tried(tmp_path, what)[2].values)
    broken.clear()
    tune(tmp_path, what, 4)
    assert dict(tried(tmp_path, what)[2].values) == left
    assert [name for name, *_ in made.calls] == ["0000", "0001", "0002", "0003", "best"]


def test_processes_and_workers_share_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of two workers each, each with its own connection, as two processes have."""
    made = Runner()

    def run(name: str, path: Path, **rest: Any) -> Any:
        time.sleep(0.02)
        return made(name, path, **rest)

    monkeypatch.setattr(spawn, "run", run)
    what, ends = order(pruner="none"), []
    threads = [threading.Thread(target=lambda: ends.append(tune(tmp_path, what, 12, at_once=2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, *_ in made.calls) == [f"{number:04}" for number in range(12)] + ["best"]
    assert ends[0] == ends[1]
    assert [trial.number for trial in tried(tmp_path, what)] == list(range(12))


class Crash(BaseException):
    """The process is gone."""


def crash(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Break off before the `at`-th change of the storage, which is after the one before it; the changes made."""
    import optuna

    storage = optuna.storages.RDBStorage
    made: list[str] = []
    for name in ("_create_new_trial", "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
                 "set_trial_state_values"):  # fmt: skip
        real = getattr(storage, name)

        def change(*args: Any, name: str = name, real: Any = real, **rest: Any) -> Any:
            if len(made) == at - 1:
                raise Crash
            made.append(name)
            return real(*args, **rest)

        patch.setattr(storage, name, change)
    return made


def test_broken_off_after_every_change_of_the_ledger_it_goes_on_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    what = order({"optimizer.learning_rate": Log(1e-4, 1e-1)})
    with monkeypatch.context() as patch:
        whole = crash(patch, 0)
        tune(tmp_path / "whole", what, 4)
    assert len(set(whole)) == 5, "there is a change of each kind"
    changes: list[str] = []
    done = False
    while not done and len(changes) <= len(whole):
        with monkeypatch.context() as patch:
            made = crash(patch, 2)
            with contextlib.suppress(Crash):
                tune(tmp_path / "broken", what, 4)
                done = True
            changes += made
    assert changes == whole, "none is repeated"
    found = tried(tmp_path / "broken", what)
    assert {trial.state for trial in found} == {"complete", "pruned"}
    assert told(found) == told(tried(tmp_path / "whole", what))
