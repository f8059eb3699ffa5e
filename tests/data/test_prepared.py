"""What the run directory keeps of its data: read back, it prepares and predicts as the data set itself would."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fdl.data import Augmentation, Data, Facts, Op, Request, Splits, augment, ops, pipeline
from fdl.data.encoders import Categories
from fdl.data.prepared import load_prepared_state, save_prepared
from fdl.data.splits import Statistics
from fdl.types import Array, Arrays, Batch, Draw, UserError

RNG = np.random.default_rng(3)
FACTS = Facts(
    classes=("Katze 🐈", "dog"), vocabulary=("a", "\n"), numeric=("x",), categories={"where": ("in", "out")}, target="price",
    unit="€", outputs=2, input_shape=(4, 4, 3), extra={"frame": {"side": 64, "mean": np.float64(0.5)}, "names": ("p", "q")},
)  # fmt: skip


def source(request: Request) -> Splits:
    images = RNG.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    train = {"inputs": images, "targets": np.array(["cat", "dog", "cow"] * 20)}
    return Splits("pets", "files", "/somewhere", train, facts=Facts(extra={"frame": [4, 4]}))


DATA = Data(
    load=source, validation=6, test=9, encode=(Categories(),), augment=(augment.Mixup(),),
    prepare=(ops.Pad(1), ops.Standardize()),
)  # fmt: skip


def test_facts_go_through_json_and_back() -> None:
    back = Facts.from_json(json.loads(json.dumps(FACTS.to_json())))
    assert back == FACTS
    assert back.extra == {"frame": {"side": 64, "mean": 0.5}, "names": ["p", "q"]}
    assert Facts.from_json(Facts().to_json() | {"of a later version": 1}) == Facts()


def test_a_fact_has_one_name_wherever_it_is_kept() -> None:
    assert FACTS.value("outputs") == 2
    assert FACTS.value("frame") == {"side": 64, "mean": 0.5}
    assert Facts().value("classes") is None
    assert Facts().value("nothing of the kind") is None


@pytest.fixture
def kept(tmp_path: Path) -> tuple[pipeline.Prepared, Path]:
    prepared = pipeline.load(DATA, Request())
    assert [path.name for path in save_prepared(tmp_path, prepared)] == ["data.npz", "data.json"]
    return prepared, tmp_path


def test_predictions_need_no_data_set(kept: tuple[pipeline.Prepared, Path]) -> None:
    prepared, folder = kept
    state = load_prepared_state(folder)
    back = state.restore(DATA)
    assert back.splits.facts == prepared.splits.facts
    assert back.splits.classes == ("cat", "cow", "dog")
    assert (state.examples, state.leaks) == ({"train": 45, "validation": 6, "test": 9}, prepared.leaks)
    batch = {
        "inputs": RNG.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8),
        "targets": np.array([0, 1, 2, 1, 0], np.int32),
    }
    np.testing.assert_array_equal(back.prepare(batch, None)["inputs"], prepared.prepare(batch, None)["inputs"])
    draw: Draw = lambda shape: jnp.full((5, *shape), 0.3)  # noqa: E731
    for name in ("inputs", "targets"):
        np.testing.assert_array_equal(back.augment(batch, draw)[name], prepared.augment(batch, draw)[name])
    np.testing.assert_array_equal(back.encode({"targets": np.array(["dog", "cat"])})["targets"], [2, 0])
    for split in ("train", "validation", "test"):
        for name, leaf in getattr(prepared.splits, split).items():
            held = getattr(back.splits, split)[name]
            assert (held.shape, held.dtype) == (leaf.shape, leaf.dtype)
    assert back.splits.train["inputs"].base.nbytes <= 1  # zeros that take no memory


def test_what_differs_from_training_is_said_first_by_name(kept: tuple[pipeline.Prepared, Path]) -> None:
    prepared, folder = kept
    state, splits = load_prepared_state(folder), prepared.splits
    assert state.difference(splits) == ""
    assert state.difference(dataclasses.replace(splits, where="/moved")) == ""  # the same rows in another place
    renamed = dataclasses.replace(splits, facts=dataclasses.replace(splits.facts, classes=("cat", "cow", "horse")))
    assert state.difference(renamed) == "the class names were cat, cow, dog, are cat, cow, horse"
    standin = dataclasses.replace(splits, name="pets-standin", sha256="f" * 64)
    assert state.difference(standin) == "the data set was pets, is pets-standin"
    other = dataclasses.replace(splits, sha256="f" * 64, where="/elsewhere")
    assert state.difference(other) == f"the data was {splits.sha256[:8]} from /somewhere, is ffffffff from /elsewhere"


def test_other_ops_than_the_runs_are_refused(kept: tuple[pipeline.Prepared, Path]) -> None:
    state = load_prepared_state(kept[1])
    with pytest.raises(UserError, match=r"data\.prepare has 1 ops, the run was trained with 2"):
        state.restore(dataclasses.replace(DATA, prepare=(ops.Pad(1),)))
    with pytest.raises(UserError, match=r"data\.encode has 0 ops, the run was trained with 1"):
        state.restore(dataclasses.replace(DATA, encode=()))


@pytest.mark.parametrize("spoil", ["no json", "no npz", "cut npz", "another npz", "a list", "a key less", "binary"])
def test_a_damaged_record_is_one_line(kept: tuple[pipeline.Prepared, Path], spoil: str, tmp_path: Path) -> None:
    _, folder = kept
    record, arrays = folder / "data.json", folder / "data.npz"
    if spoil == "no json":
        record.unlink()
    elif spoil == "no npz":
        arrays.unlink()
    elif spoil == "cut npz":
        arrays.write_bytes(arrays.read_bytes()[:50])
    elif spoil == "another npz":
        np.savez(arrays, **{"prepare/0/shift": np.zeros(3)})
    elif spoil == "a list":
        record.write_text("[]")
    elif spoil == "a key less":
        held = json.loads(record.read_text())
        del held["facts"]
        record.write_text(json.dumps(held))
    else:
        record.write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match=r"data\.(json|npz)") as caught:
        load_prepared_state(folder)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def source(request: Request) -> Splits:
        rows = {"inputs": np.zeros((4, 2), np.float32)}
        return Splits("odd", "", "", rows, rows, facts=Facts(extra={"where": Path("/")}))

    prepared = pipeline.load(Data(load=source), Request())
    with pytest.raises(UserError, match="JSON values from"):
        save_prepared(tmp_path / "run", prepared)
    assert not (tmp_path / "run").exists()


def test_an_op_that_does_not_suit_the_data_is_one_line() -> None:
    def source(request: Request) -> Splits:
        rows = {"inputs": np.zeros((4, 8, 8), np.uint8), "targets": np.zeros(4, np.int32)}
        return Splits("grey", "", "", rows, rows)

    for settings, said in (
        (
            {"prepare": (ops.Tabular(),)},
            r"the op Tabular does not suit the data \(inputs uint8 .'B', 8, 8., targets int32",
        ),
        ({"prepare": (ops.Standardize(),)}, r"pictures need an axis of channels: .* expected .4, 8, 8, 1."),
        ({"prepare": (ops.Pad(),)}, "Pad is for pictures .B, H, W, C., the inputs are uint8"),
        ({"augment": (augment.Flip(),)}, "Flip is for pictures"),
        ({"augment": (augment.Shift(),)}, "Shift is for pictures"),
        ({"augment": (augment.Cutout(),)}, "Cutout is for pictures"),
        ({"augment": (augment.Cutmix(),)}, "Cutmix is for pictures"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            pipeline.load(Data(load=source, **settings), Request())  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_an_augmentation_of_ones_own_is_one_method() -> None:
    @dataclasses.dataclass(frozen=True)
    class Invert(Augmentation):
        share: float = 0.5

        def change(self, x: Array, draw: Draw) -> Array:
            return jnp.where(draw(())[:, None] < self.share, 1 - x, x)

    batch = {"inputs": jnp.array([[0.2], [0.7]]), "id": jnp.arange(2)}
    fitted = pipeline.fit_ops((Invert(),), batch)
    np.testing.assert_allclose(fitted(batch, lambda shape: jnp.array([0.1, 0.9]))["inputs"], [[0.8], [0.7]])
    assert fitted(batch, None) is batch


def test_an_op_of_ones_own_is_given_its_statistics() -> None:
    class Centre(Op):
        def fit(self, train: Arrays) -> Statistics:
            return {"mean": np.asarray(train["inputs"].mean(0))}

        def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
            return {**batch, "inputs": batch["inputs"] - statistics["mean"]}

    rows: dict[str, Any] = {"inputs": np.array([[1.0, 2], [3, 6]])}
    np.testing.assert_allclose(pipeline.fit_ops((Centre(),), rows)(rows, None)["inputs"], [[-1, -2], [1, 2]])
