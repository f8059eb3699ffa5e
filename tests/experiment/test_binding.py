"""What experiments leave to the data, sources given as text, and tuples of tuples: through Python and the command line."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from flax import linen as nn
from forked import Command
from PIL import Image
from small import summary

from fdl.data import Data, Facts, Request, Splits, planar, source_text, sources
from fdl.data.formats.folders import folder
from fdl.experiment import Experiment, load_experiment, override, settings
from fdl.experiment.binding import bind_experiment, bind_model, resolved_settings
from fdl.models import CNN, MLP, HandCNN, HandMLP, Recurrent, ResNet18
from fdl.parsing import parse
from fdl.tasks import Classification
from fdl.tasks.panels.answers import class_names
from fdl.types import Fact, Outputs, Range, UserError, VocabularySize

FACTS = Facts(classes=("a", "b", "c"), vocabulary=tuple("wxyz"), outputs=3, input_shape=(8, 8, 1), extra={"frames": 7})


class Encoder(nn.Module):
    vocabulary: VocabularySize = 0
    width: int = 0  # 0 without Fact is a value like any other


@dataclasses.dataclass(frozen=True)
class Head:
    outputs: Outputs = 0
    shape: Annotated[tuple[int, ...], Fact("input_shape")] = ()


class Both(nn.Module):
    encoder: Encoder = Encoder()
    heads: tuple[Head, ...] = (Head(), Head(outputs=9))
    frames: Annotated[int, Range(0), Fact("frames")] = 0
    later: Annotated[int, Fact("nothing of the kind")] = 5


def test_only_what_is_left_to_the_data_is_filled_at_any_depth() -> None:
    bound = bind_model(Both(), FACTS)
    assert (bound.encoder.vocabulary, bound.encoder.width) == (4, 0)
    assert bound.heads == (Head(3, (8, 8, 1)), Head(9, (8, 8, 1)))
    assert (bound.frames, bound.later) == (7, 5)
    assert bind_model(bound, FACTS) is bound
    with pytest.raises(
        UserError, match=r"model\.encoder\.vocabulary is left to the data, which do not say 'vocabulary'"
    ):
        bind_model(Both(), dataclasses.replace(FACTS, vocabulary=()))


@pytest.mark.parametrize("model", [CNN(), MLP(), ResNet18(), HandMLP(), HandCNN(), Recurrent()])
def test_every_shipped_model_takes_its_outputs_from_the_data(model: Any) -> None:
    name = "vocabulary" if isinstance(model, Recurrent) else "outputs"
    assert getattr(bind_model(model, FACTS), name) == (4 if name == "vocabulary" else 3)
    assert getattr(bind_model(model.clone(**{name: 2}), FACTS), name) == 2
    with pytest.raises(ValueError, match=f"{name}=0 takes its size from the data"):
        model.init(
            {"params": __import__("jax").random.key(0)},
            np.zeros((1, 16, 16, 1) if name == "outputs" else (1, 4), np.int32),
        )


def test_binding_leaves_the_rest_of_the_experiment_alone() -> None:
    whole = load_experiment("fashion_cnn")
    bound = bind_experiment(whole, FACTS)
    changed = {path for (path, one), (_, other) in zip(settings(whole), settings(bound), strict=True) if one != other}
    assert changed == {"model.outputs"}


@pytest.mark.parametrize("name", sorted(sources.DATA_SETS))
def test_every_data_set_has_a_name(name: str) -> None:
    load = source_text.parse_source(name)
    assert load is sources.DATA_SETS[name]
    assert source_text.parse_source(f"{load.__module__}.{name}") is load  # as --show prints it


@pytest.mark.parametrize(
    ("text", "function", "given"),
    [
        ("folder:birds", folder, {"path": "birds"}),
        ("folder:~/a,b/c,size=32,48,channels=1", folder, {"path": "~/a,b/c", "size": (32, 48), "channels": 1}),
        ("folder:C:\\birds", folder, {"path": "C:\\birds"}),
        ("tiny_shakespeare,length=64, eval_length=32", sources.tiny_shakespeare, {"length": 64, "eval_length": 32}),
        ("fashion_pair,first=Coat,second=Bag", sources.fashion_pair, {"first": "Coat", "second": "Bag"}),
        ("moons,noise=0.1", planar.moons, {"noise": 0.1}),
    ],
)
def test_a_source_reads_its_own_text(text: str, function: Any, given: dict[str, Any]) -> None:
    load = Data(load=text).load
    assert isinstance(load, functools.partial)
    assert (load.func, load.keywords) == (function, given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minst", "did you mean mnist?"),
        ("birds/", "a folder of pictures is folder:PATH"),
        ("foldr:x", "did you mean folder:?"),
        ("folder:", "folder: needs a path"),
        ("folder:x,sise=3", "sise is no option of folder; it has path, size, channels, labels,"),
        ("folder:x,path=y", "path is given twice"),
        ("folder:x,size=3,3,size=4,4", "size is given twice"),
        ("folder:x,size=3", "size=3: expected 2 values with commas between, got 1"),
        ("folder:x,channels=2", "channels=2: expected 1 | 3"),
        ("mnist,size=3", "size is no option of mnist; it has none"),
        ("", "there is no data set ''"),
    ],
)
def test_a_source_that_is_none_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        override(load_experiment("digits_cnn"), f"data.load={text}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_replaces_the_source_and_nothing_else() -> None:
    whole = load_experiment("fashion_cnn")
    for path in ("data", "data.load"):
        new = override(whole, f"{path}=folder:birds", "data.load.size=32,32", "data.validation=10%")
        assert isinstance(new.data.load, functools.partial)
        assert (new.data.load.func, new.data.load.keywords) == (folder, {"path": "birds", "size": (32, 32)})
        assert (new.data.prepare, new.data.augment, new.model) == (whole.data.prepare, whole.data.augment, whole.model)
        assert str(new.data.validation) == "10%"
    assert str(override(whole, "data=folder:birds").data.validation) == "10%"  # 2000 were Fashion-MNIST's
    assert str(override(whole, "data.validation=7", "data=folder:birds").data.validation) == "7"
    assert str(override(whole, "data.load=folder:birds").data.validation) == "2000"
    assert not override(load_experiment("shakespeare_lstm"), "data=moons").data.validation
    assert override(whole, "data=folder:birds", "data=mnist").data.load is sources.mnist
    with pytest.raises(UserError, match=r"there is no setting data\.load\.first"):
        override(whole, "data=folder:birds", "data.load.first=Coat")
    shakespeare = override(
        load_experiment("shakespeare_lstm"), "data=moons", "data.load.noise=0.5", "data.load.examples=9"
    )
    assert shakespeare.data.load.keywords == {"noise": 0.5, "examples": 9}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("(1,2),(3,4)", tuple[tuple[int, int], ...], ((1, 2), (3, 4))),
        ("((1,2),(3,4))", tuple[tuple[int, int], ...], ((1, 2), (3, 4))),
        ("[(1, 2)]", tuple[tuple[int, int], ...], ((1, 2),)),
        ("(1,2)", tuple[tuple[int, int], ...], ((1, 2),)),
        ("(0.5,(a,b))", tuple[float, tuple[str, ...]], (0.5, ("a", "b"))),
        ("()", tuple[tuple[int, int], ...], ()),
        ("[1, 2,]", tuple[int, ...], (1, 2)),
        ("7", tuple[int, ...], (7,)),
    ],
)
def test_tuples_of_tuples_are_read(text: str, kind: Any, value: Any) -> None:
    assert parse(text, kind) == value


@pytest.mark.parametrize("text", ["(1,2", "1,2)", "((1,2)", "(1,2),(3"])
def test_brackets_that_do_not_match_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"brackets|expected"):
        parse(text, tuple[tuple[int, int], ...])


def birds(root: Path, classes: dict[str, tuple[int, int, int]], count: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name, colour in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_show_prints_what_the_data_decide_where_it_is_quickly_known(run_fdl: Command, tmp_path: Path) -> None:
    root = birds(tmp_path / "birds", {"crow": (20, 20, 20), "gull": (200, 200, 200), "kite": (150, 60, 20)}, 1)
    request = Request(data_dir=tmp_path, offline=True)
    shown = lambda *texts: resolved_settings(override(load_experiment("fashion_cnn"), *texts), request)["model.outputs"]  # noqa: E731
    assert shown() == "10"
    assert shown("model.outputs=4") == "4"
    assert shown(f"data=folder:{root}") == "3"
    assert shown("data=folder:birds") == "3"
    assert shown("data=folder:none/such") == "0 (from the data)"
    assert shown("data=blobs,classes=5") == "5"
    done = run_fdl(tmp_path, "--experiment=shakespeare_lstm", "--show", "--offline", env={"FDL_DATA_DIR": ""})
    assert done.stderr == ""
    assert "model.vocabulary = 0 (from the data)\n" in done.stdout


def test_any_folder_of_pictures_trains_with_no_code(run_fdl: Command, tmp_path: Path) -> None:
    birds(tmp_path / "birds", {"crow": (20, 20, 20), "gull": (200, 200, 200), "kite": (150, 60, 20)})
    flags = ["--experiment=fashion_cnn", "--set=data=folder:birds", "--set=data.load.size=12,12"]
    tiny = [
        f"--set={each}"
        for each in ("model.filters=4", "model.dense=8", "steps=30", "batch_size=8", "eval_batch_size=8")
    ]
    run_fdl(tmp_path, *flags, *tiny, "--workdir=run", "--noreport")
    found = summary(tmp_path / "run")
    assert found["metrics"]["test/accuracy"] > 0.9
    assert found["data"]["eval_examples"] == 3
    done = run_fdl(tmp_path, "--experiment=california_mlp", "--set=data=folder:birds", "--workdir=other", code=2)
    assert "the op Tabular does not suit the data (inputs uint8" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_source_of_ones_own_needs_only_names_and_rows() -> None:
    """Labels from 0 to 4 and no class names: the model gets five outputs, and a test split is cut."""

    def source(request: Request) -> Splits:
        rng = np.random.default_rng(0)
        return Splits("own", "files", "here", {"inputs": rng.normal(size=(50, 2)), "targets": np.arange(50) % 5})

    from fdl.data import pipeline

    experiment = Experiment(data=Data(load=source), model=MLP(), task=Classification())
    prepared = pipeline.load(experiment.data, Request())
    assert bind_experiment(experiment, prepared.splits.facts).model.outputs == 5
    assert prepared.splits.test is not None
    assert len(prepared.splits.test["targets"]) == 10


def test_classes_keep_their_names_where_the_model_has_more_outputs() -> None:
    splits = Splits("pets", "", "", {}, facts=Facts(classes=("cat", "dog")))
    assert class_names(splits, 4) == ("cat", "dog", "2", "3")
    assert class_names(splits, 1) == ("cat",)
