"""A user's own pictures for a trained model: any number, one broken one among them, in the form that the run's data had."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fdl.data import Data, Facts, Splits, pipeline
from fdl.data.picture_spec import KEY, PictureSpec, picture_spec
from fdl.data.prepared import load_prepared_state, save_prepared
from fdl.data.splits import Request
from fdl.models import CNN
from fdl.tasks import Classification, picture_inputs
from fdl.tasks.picture_inputs import read_pictures, spec_of
from fdl.tasks.task import View
from fdl.types import UserError

RGB = PictureSpec((6, 6, 3), "uint8", 255.0, False)


def splits_of(inputs: np.ndarray, classes: tuple[str, ...] = ("dim", "bright")) -> Splits:
    rows = {"inputs": inputs, "targets": np.arange(len(inputs), dtype=np.int32) % 2}
    return Splits("mine", "files", "here", rows, rows, facts=Facts(classes=classes))


def view_of(splits: Splits, asked: list[int]) -> View:
    """A model that says "bright" (its second output) by how bright a picture is, and writes down what it was asked."""

    def outputs(arrays: dict) -> np.ndarray:
        means = arrays["inputs"].reshape(len(arrays["inputs"]), -1).mean(1) / 25.5
        asked.append(len(means))
        return np.stack([5 - means, means - 5], 1)

    return View(
        splits=splits, model=CNN(filters=(2,), outputs=2), variables={}, over=lambda arrays: iter(()), outputs=outputs,
        prepared=lambda arrays: arrays, augmented=lambda arrays: arrays,
    )  # fmt: skip


def draw(root: Path, *paths: str, level: int = 200) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (level + number,) * 3).save(root / path, "PNG")


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_any_number_of_pictures_is_read_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i:02}.png" for i in range(25)]
    draw(tmp_path / "in", *names, level=100)
    (tmp_path / "in" / "07x.png").write_bytes(b"broken")
    view = view_of(splits_of(np.zeros((4, 6, 6, 3), np.uint8)), whole := [])
    written = Classification().predict(view, str(tmp_path / "in"), tmp_path / "whole")
    monkeypatch.setattr(picture_inputs, "CHUNK_BYTES", 4 * 6 * 6 * 3)
    view = view_of(view.splits, some := [])
    again = Classification().predict(view, str(tmp_path / "in"), tmp_path / "some")
    assert whole == [25]
    assert sum(some) == 25
    assert max(some) == 4
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    rows = table(again[0])
    assert [row[0] for row in rows[1:]] == names
    assert [row[2] for row in rows[1:]] == ["bright" if 100 + i > 127.5 else "dim" for i in range(25)]
    assert [row[0] for row in table(again[2])[1:]] == [str(tmp_path / "in" / "07x.png")]


def test_links_are_followed_and_what_systems_leave_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(
        tmp_path / "photos",
        "holiday/1.png",
        "holiday/2.png",
        ".thumbs/1.png",
        "__MACOSX/holiday/._1.png",
        "holiday/._1.png",
    )
    (tmp_path / "photos/Thumbs.db").touch()
    (tmp_path / "photos/notes.txt").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/album").symlink_to(tmp_path / "photos/holiday")
    (tmp_path / "linked/album/round").symlink_to(tmp_path / "linked")
    (chunk,) = read_pictures(str(tmp_path / "photos"), RGB)
    assert chunk.names == ["holiday/1.png", "holiday/2.png"]  # "round" leads back
    (tmp_path / "linked/album/round").unlink()
    (chunk,) = read_pictures(str(tmp_path / "linked"), RGB)
    assert chunk.names == ["album/1.png", "album/2.png"]
    assert (chunk.rows[:, 0, 0, 0] == [200, 201]).all()
    assert "not named like pictures are left out: 1 .txt" in caplog.text


def test_one_file_is_tried_whatever_its_name(tmp_path: Path) -> None:
    draw(tmp_path, "scan")
    (chunk,) = read_pictures(str(tmp_path / "scan"), RGB)
    assert (chunk.names, chunk.rows.shape, chunk.bad) == (["scan"], (1, 6, 6, 3), [])


@pytest.mark.parametrize(
    ("inputs", "spec"),
    [
        (np.full((3, 4, 5, 3), 9, np.uint8), PictureSpec((4, 5, 3), "uint8", 255.0, False)),
        (np.zeros((3, 4, 5, 1), np.uint8), PictureSpec((4, 5, 1), "uint8", 255.0, True)),
        (np.full((3, 4, 5), 200, np.uint8), PictureSpec((4, 5), "uint8", 255.0, False)),
        (np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5, 1), PictureSpec((4, 5, 1), "float32", 1.0, False)),
        (np.zeros((3, 4, 5, 2), np.uint8), None),
        (np.zeros((3, 7), np.float32), None),
        ({"numeric": np.zeros((3, 2))}, None),
    ],
)
def test_the_form_of_pictures(inputs: object, spec: PictureSpec | None) -> None:
    assert picture_spec(inputs) == spec


def test_the_form_is_kept_with_the_run_and_predictions_need_no_data(tmp_path: Path) -> None:
    digits = np.zeros((8, 6, 6, 1), np.float32)
    digits[:, 2:4, 2:4] = 4.0  # white is 4 here
    data = Data(load=lambda request: splits_of(digits), test=0)
    save_prepared(tmp_path, pipeline.load(data, Request()))
    restored = load_prepared_state(tmp_path).restore(data).splits
    assert not restored.train["inputs"].any()  # the rows are not there any more
    spec = spec_of(restored)
    assert spec == PictureSpec((6, 6, 1), "float32", 4.0, True)
    paper = np.full((6, 6), 255, np.uint8)
    paper[2:4, 2:4] = 0
    Image.fromarray(paper).save(tmp_path / "paper.png")
    (chunk,) = read_pictures(str(tmp_path / "paper.png"), spec)
    assert chunk.inverted == [True]
    np.testing.assert_allclose(chunk.rows, digits[:1])
    asked: list[int] = []
    written = Classification().predict(view_of(restored, asked), str(tmp_path / "paper.png"), tmp_path / "out")
    assert table(written[0])[1][2] == "dim"


def test_a_source_s_own_word_on_its_pictures_counts() -> None:
    own = dataclasses.replace(RGB, crop=True)
    splits = splits_of(np.zeros((4, 6, 6, 3), np.uint8))
    splits = dataclasses.replace(splits, facts=dataclasses.replace(splits.facts, extra={KEY: own.to_json()}))
    facts = pipeline.load(Data(load=lambda request: splits, test=0), Request()).splits.facts
    assert PictureSpec.from_json(facts.extra[KEY]) == own


def test_outputs_beyond_the_classes_are_numbered(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    view = view_of(splits_of(np.zeros((4, 6, 6, 3), np.uint8), classes=("dim",)), [])
    written = Classification().predict(view, str(tmp_path / "1.png"), tmp_path / "out")
    assert [table(written[0])[1][i] for i in (2, 4)] == ["1", "dim"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing", "no file or folder 'nothing'"),
        ("empty", "no image in"),
        ("folder", r"none of 1 images can be read; .*x\.png: it is empty"),
    ],
)
def test_nothing_to_predict_is_one_line(
    tmp_path: Path, source: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x.png").touch()
    with pytest.raises(UserError, match=says) as caught:
        Classification().predict(view_of(splits_of(np.zeros((4, 6, 6, 3), np.uint8)), []), source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_of_something_else_is_not_given_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    with pytest.raises(UserError, match="not given images"):
        Classification().predict(view_of(splits_of(np.zeros((4, 7), np.float32)), []), str(tmp_path), tmp_path / "out")
