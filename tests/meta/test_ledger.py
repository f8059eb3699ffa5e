"""Figures are those of runs with the present settings, and every table shows the ledger's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import ledger
from benchmarks.ledger import Result
from fdl.experiment import EXPERIMENTS, docstring, load_experiment, settings, show
from fdl.types import UserError


def result(seed: int, accuracy: float, **changes: object) -> Result:
    given = {
        "experiment": "digits_cnn", "settings": {"x": "0"}, "seed": seed, "steps": 10,
        "metrics": {"test/accuracy": accuracy},
        "baselines": {"majority class": {"test/accuracy": 0.1}, "linear": {"test/accuracy": 0.9}},
        "seconds": 90.0, "peak_rss_bytes": 1, "hardware": "2 cores of an X", "alone": True,
        "versions": {"jax": "0.10.2"}, "commit": None, "data": {},
    }  # fmt: skip
    return Result(**(given | changes))  # type: ignore[arg-type]


def test_no_figure_is_older_than_its_settings() -> None:
    for found in ledger.read_results():
        again = f"python -m benchmarks --suite=accuracy --only={found.experiment}"
        assert not ledger.changed_settings(found), again


def test_readme_shows_the_ledger() -> None:
    text = ledger.README.read_text()
    assert text == ledger.with_table(text, ledger.describe_all(ledger.read_results())), (
        "python -m benchmarks.ledger write"
    )


def test_docstrings_show_the_ledger() -> None:
    for line in ledger.describe_all(ledger.read_results()):
        doc = " ".join(docstring(EXPERIMENTS / f"{line.experiment}.py").split())
        if "Result:" in doc:
            assert f"Result: {line.sentence}" in doc, f"{line.experiment}: python -m benchmarks.ledger write"


def test_the_median_its_range_and_the_best_baseline_are_shown() -> None:
    line = ledger.describe([result(0, 0.97), result(1, 0.99), result(2, 0.98, seconds=150.0)])
    assert line.sentence == (
        "98.00% accuracy on test (97.00% to 99.00%, 3 seeds) in 1.5 min; best simple model: linear 90.00%"
    )
    assert (
        ledger.describe([result(4, 0.97, alone=False)]).hardware
        == "2 cores of an X, shared with other work; jax 0.10.2"
    )
    assert "(seed 4)" in ledger.describe([result(4, 0.97)]).reaches


def test_a_new_result_replaces_that_of_its_seed_and_those_of_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    ledger.add_results([result(0, 0.5), result(1, 0.6), result(0, 0.7, experiment="mnist_cnn")], path)
    ledger.add_results([result(1, 0.8)], path)
    assert [(x.experiment, x.seed, x.metrics["test/accuracy"]) for x in ledger.read_results(path)] == [
        ("digits_cnn", 0, 0.5), ("digits_cnn", 1, 0.8), ("mnist_cnn", 0, 0.7),
    ]  # fmt: skip
    ledger.add_results([result(2, 0.9, settings={"x": "1"})], path)
    assert [(x.experiment, x.seed) for x in ledger.read_results(path)] == [("digits_cnn", 2), ("mnist_cnn", 0)]


def test_only_the_two_keys_of_a_docstring_change() -> None:
    doc = "A net.\n\nSource: a paper.\nCommand: run it\nHardware: old\nResult: old, so long\n    that it goes on\n"
    before = f'"""{doc}"""\nx = """Result: y"""\n'
    line = dataclasses.replace(ledger.describe([result(0, 0.97)]), hardware="new")
    after = ledger.with_result(before, line)
    assert after.startswith(
        '"""A net.\n\nSource: a paper.\nCommand: run it\nHardware: new\nResult: 97.00% accuracy on test'
    )
    assert after.endswith('"""\nx = """Result: y"""\n')
    assert "goes on" not in after


def run_directory(folder: Path, **changes: object) -> Path:
    found = {path: show(value) for path, value in settings(load_experiment("digits_cnn")) if path != "name"}
    config = {
        "experiment": "digits_cnn", "overrides": [], "settings": found, "seed": 3, "git_commit": None,
        "versions": {"python": "3", "jax": "1", "flax": "1", "optax": "1"},
    } | changes  # fmt: skip
    summary = {
        "steps": 5, "metrics": {"test/accuracy": 0.9}, "baselines": {}, "peak_rss_bytes": 1, "devices": ["TFRT_CPU_0"],
        "timing": {"total": 12.34},
        "data": {"name": "digits", "source": "files", "sha256": "a", "standin": bool(config.pop("standin", False))},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_finished_run_is_read(tmp_path: Path) -> None:
    found = ledger.read_run(run_directory(tmp_path))
    assert (found.experiment, found.seed, found.metrics) == ("digits_cnn", 3, {"test/accuracy": 0.9})
    assert found.seconds == 12.3
    assert not ledger.changed_settings(found)
    older = {name: value for name, value in found.settings.items() if name != "model.dtype"}
    assert not ledger.changed_settings(dataclasses.replace(found, settings=older))
    other = found.settings | {"batch_size": "7"}
    assert ledger.changed_settings(dataclasses.replace(found, settings=other)) == ["batch_size: 7 then, 64 now"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"overrides": ["steps=5"]}, "--set steps=5"),
        ({"standin": True}, "stand-in"),
        ({"settings": {"batch_size": "7"}}, "run it again"),
    ],
)
def test_other_runs_are_refused(changes: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what):
        ledger.read_run(run_directory(tmp_path, **changes))
    with pytest.raises(UserError, match="no finished run"):
        ledger.read_run(tmp_path / "nothing")
