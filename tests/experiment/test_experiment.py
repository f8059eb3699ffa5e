"""Dotted names, typed values, and errors that say how to mend them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from fdl.experiment import experiment_names, find_experiment, load_experiment, override, settings
from fdl.types import Duration, UserError, is_due


@pytest.fixture
def cnn():  # type: ignore[no-untyped-def]
    return load_experiment("fashion_cnn")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("batch_size=64", "batch_size", 64),
        ("steps=300", "steps", Duration(300)),
        ("steps=2.5epochs", "steps", Duration(2.5, "epochs")),
        ("save_every=10%", "save_every", Duration(10, "%")),
        ("model.dropout=0", "model.dropout", 0.0),
        ("model.filters=(8, 16)", "model.filters", (8, 16)),
        ("model.batch_norm=false", "model.batch_norm", False),
        ("model.activation=gelu", "model.activation", "gelu"),
        ("optimizer.learning_rate=1e-2", "optimizer.learning_rate", 1e-2),
        ("data.source=builtin", "data.source", "builtin"),
        ("data.augment=none", "data.augment", ()),
        ("num_examples=none", "num_examples", None),
        ("num_examples=1000", "num_examples", 1000),
        ("patience=3", "patience", 3),
    ],
)
def test_an_override_sets_that_field_and_no_other(cnn, text: str, path: str, value: object) -> None:  # type: ignore[no-untyped-def]
    before, after = dict(settings(cnn)), dict(settings(override(cnn, text)))
    if path in after:
        assert after.pop(path) == value
        before.pop(path, None)
    rest = {k: v for k, v in before.items() if not k.startswith(path + ".")}
    assert {k: v for k, v in after.items() if k != path} == {k: v for k, v in rest.items() if k != path}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batchsize=64", "nearest is batch_size"),
        ("optimizer.learnin_rate=1", "optimizer.learning_rate"),
        ("model.depth.x=1", "no setting model.depth.x"),
        ("batch_size=0", "[1, inf)"),
        ("batch_size=-5", "[1, inf)"),
        ("batch_size=1.5", "whole number"),
        ("batch_size=", "whole number"),
        ("batch_size", "path=value"),
        ("=3", "path=value"),
        ("steps=-5", "duration"),
        ("steps=0", "longer than 0"),
        ("steps=nan", "duration"),
        ("steps=10%", "share of itself"),
        ("steps=0.5", "whole number"),
        ("optimizer.learning_rate=nan", "NaN is no setting"),
        ("optimizer.learning_rate=inf", "(0, inf)"),
        ("optimizer.learning_rate=1e39", "32 bits"),
        ("optimizer.learning_rate=fast", "a number"),
        ("batch_size=4294967296", "32 bits"),
        ("steps=99999999999", "longer than any run"),
        ("steps=" + "9" * 400, "longer than any run"),
        ("data.on_bad=ignore", "stop | skip"),
        ("model.dropout=1", "[0, 1)"),
        ("model.batch_norm=maybe", "true or false"),
        ("model.activation=rulu", "relu"),
        ("model.filters=8,x", "whole number"),
        ("model=cnn", "group"),
        ("model.name=x", "no setting model.name"),
        ("data.load=os.system", "there is no data set 'os.system'"),
        ("data.source=web", "auto | tfds | files | builtin"),
    ],
)
def test_a_bad_override_is_one_line_that_names_the_setting(cnn, text: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as caught:
        override(cnn, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert text.split("=")[0] in str(caught.value)


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UserError, match="fashion_cnn"):
        find_experiment("fashon_cnn")


@pytest.mark.parametrize(
    "name",
    [
        "../fdl/main", "os", "os.system", "experiments.nothing", "experiments.os", "experiments/../fdl/main", "fdl.train",
        "experiments.__init__", "/etc/passwd", "nowhere/mine.py", "../x", "../x.py", "~nobody/x.py", "x" * 5000 + ".py", "x\0.py",
        "", ".py", "<script>", "a\nb",
    ],
)  # fmt: skip
def test_nothing_outside_experiments_is_imported_by_name(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UserError) as caught:
        find_experiment(name)
    assert str(caught.value).isprintable()
    assert set(sys.modules) == before


@pytest.mark.parametrize("stem", ["json", "numpy"])
def test_a_file_named_like_a_module_does_not_take_its_place(tmp_path: Path, stem: str) -> None:
    mine, before = tmp_path / f"{stem}.py", __import__(stem)
    mine.write_text(
        '# coding: latin-1\n"""\xe9"""\nfrom experiments.fashion_cnn import experiment\n', encoding="latin-1"
    )
    assert load_experiment(str(mine)).name == stem
    assert find_experiment(str(mine)).doc == "\xe9"
    assert sys.modules[stem] is before


def test_a_users_own_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import dataclasses\nfrom experiments.fashion_cnn import experiment as base\n\n"
        "def experiment():\n    return dataclasses.replace(base(), model=base().model.clone(filters=(8, 8)))\n"
    )
    found = load_experiment(str(mine), ["batch_size=16"])
    assert (found.name, found.model.filters, found.batch_size) == ("mine", (8, 8), 16)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "says"),
    [("syntax error here", "SyntaxError"), ("x = 1\n", "experiment()"), ("def experiment():\n    return 3\n", "int"),
     ("import nonexistent_module\n", "nonexistent_module"), ("raise SystemExit(0)\n", "SystemExit"),
     ("def experiment():\n    exit()\n", "SystemExit"), ("def experiment():\n    1/0\n", "ZeroDivisionError")],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    mine = tmp_path / "broken.py"
    mine.write_text(text)
    with pytest.raises(UserError, match=says.replace("(", r"\(").replace(")", r"\)")) as caught:
        load_experiment(str(mine))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_has_the_names_that_users_rely_on(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    names = dict(settings(experiment))
    for path in (
        "steps",
        "batch_size",
        "log_every",
        "eval_every",
        "save_every",
        "num_examples",
        "optimizer.learning_rate",
        "data.source",
    ):
        assert path in names
    assert hash(dataclasses.astuple(experiment.steps))


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_says_what_it_reaches(name: str) -> None:
    doc = find_experiment(name).doc
    for word in ("Source:", "Command:", "Result:"):
        assert word in doc, f"experiments/{name}.py has no line {word!r} in its docstring"


@pytest.mark.parametrize(
    ("text", "batch", "examples", "total", "steps"),
    [
        ("300", 10, 100, None, 300),
        ("5epochs", 10, 100, None, 50),
        ("1epoch", 64, 100, None, 1.5625),
        ("2000examples", 10, 7, None, 200),
        ("10%", 1, 1, 250, 25),
        ("0.1%", 1, 1, 250, 1),
    ],
)
def test_durations(text: str, batch: int, examples: int, total: int | None, steps: float) -> None:
    assert Duration.parse(text).in_steps(batch, examples, total) == steps
    assert Duration.parse(str(Duration.parse(text))) == Duration.parse(text)


@pytest.mark.parametrize("period", [1.0, 1.5625, 7.0, 453.125])
def test_what_is_due_every_epoch_comes_once_an_epoch(period: float) -> None:
    due = [step for step in range(10_000) if is_due(step, period)]
    assert due == [round(k * period) for k in range(1, round(9_999 / period) + 1) if round(k * period) < 10_000]
    assert not any(is_due(step, 0.0) for step in range(100))


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text()
    (tmp_path / "mine.py").write_text(
        next(block.split("```")[0] for block in readme.split("```python\n") if "def experiment()" in block)
    )
    found = load_experiment(str(tmp_path / "mine.py"), ["batch_size=64"])
    assert (found.model.filters, str(found.steps)) == ((64, 64, 128), "5epochs")  # type: ignore[attr-defined]
