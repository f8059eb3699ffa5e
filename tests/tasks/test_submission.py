"""Kaggle's layout from end to end: labels.csv and a folder of pictures, trained on, predicted for, submitted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fdl.data import Request, Splits
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.folders import folder
from fdl.tasks import Classification, View
from fdl.types import Arrays, UserError

BREEDS = ("boxer", "pug", "whippet")
RNG = np.random.default_rng(0)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """24 labelled pictures in train/, 5 in test/; a picture's colour channel is its breed."""
    ids = [f"{number:032x}" for number in RNG.choice(2**31, 29, replace=False)]
    rows = ["id,breed"]
    for place, name in enumerate(ids):
        part = tmp_path / ("train" if place < 24 else "test")
        part.mkdir(exist_ok=True)
        pixels = RNG.integers(0, 40, (9, 12, 3)).astype(np.uint8)
        pixels[..., place % 3] += 200
        Image.fromarray(pixels).save(part / f"{name}.jpg", quality=95)
        rows += [f"{name},{BREEDS[place % 3]}"] if place < 24 else []
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    write_sample(tmp_path, ids[24:])
    return tmp_path


def write_sample(root: Path, ids: list[str], columns: tuple[str, ...] = ("whippet", "boxer", "pug")) -> None:
    lines = [",".join(("id", *columns)), *(f"{name}{',0.333' * len(columns)}" for name in ids)]
    (root / "sample_submission.csv").write_text("\n".join(lines) + "\n")


def load(root: Path, **options: Any) -> Splits:
    return folder(Request(), path=str(root), labels="labels.csv", size=(8, 8), **options)


def view_of(splits: Splits) -> View:
    """A model that knows each picture's channel: its logits are the channels' means."""

    def outputs(rows: Arrays) -> np.ndarray:
        return np.asarray(rows["inputs"], np.float32).mean((1, 2)) / 60

    return View(splits, None, {}, outputs, lambda rows: rows, lambda rows: rows)  # type: ignore[arg-type]


def test_a_submission_has_the_samples_columns_and_an_id_a_row(kaggle: Path, tmp_path: Path) -> None:
    splits = load(kaggle)
    assert splits.classes == BREEDS
    (written,) = Classification().predict(view_of(splits), str(kaggle / "sample_submission.csv"), tmp_path / "out")
    assert written.name == "submission.csv"
    with written.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "whippet", "boxer", "pug"]
    ids = [path.stem for path in (kaggle / "test").iterdir()]
    assert [row[0] for row in rows] == sorted(ids)
    for name, *cells in rows:
        assert sum(map(float, cells)) == pytest.approx(1, abs=1e-8)
        pixels = np.asarray(Image.open(kaggle / "test" / f"{name}.jpg"), float).mean((0, 1))
        assert header[1 + int(np.argmax([float(cell) for cell in cells]))] == BREEDS[int(pixels.argmax())]


def test_faults_of_a_submission_are_one_line_and_write_nothing(kaggle: Path, tmp_path: Path) -> None:
    view, out = view_of(load(kaggle)), tmp_path / "out"
    ids = [path.stem for path in (kaggle / "test").iterdir()]

    def said(ids: list[str], columns: tuple[str, ...] = ("whippet", "boxer", "pug")) -> str:
        write_sample(kaggle, ids, columns)
        with pytest.raises(UserError) as error:
            Classification().predict(view, str(kaggle / "sample_submission.csv"), out)
        assert not out.exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "1 of 6 ids have no picture" in said([*ids, "feed"])
    assert "'feed'" in said([*ids, "feed"])
    assert "no column for the model's class 'pug'" in said(ids, ("whippet", "boxer", "dingo"))
    assert "asks for the class" in said(ids, ("whippet", "boxer", "pug", "dingo"))
    assert "dingo" in said(ids, (*BREEDS, "dingo"))
    assert "comes twice" in said([*ids, ids[0]])
    assert "no ids" in said([])
    (kaggle / "test" / f"{ids[0]}.jpg").write_bytes(b"no picture")
    assert "needs the picture of every id" in said(ids)


def test_ids_without_a_picture_are_listed(kaggle: Path) -> None:
    labels = kaggle / "labels.csv"
    labels.write_text(labels.read_text() + "cafe,pug\n")
    with pytest.raises(BadInputs, match="cafe") as error:
        load(kaggle)
    assert "\n" not in str(error.value)


def test_equal_pictures_stay_on_one_side(tmp_path: Path) -> None:
    """Every picture twice, under another name: no test row is also in training, by any of the cuts."""
    from fdl.data import Data, pipeline

    for breed in BREEDS:
        (tmp_path / "dogs" / breed).mkdir(parents=True)
        for number in range(20):
            image = Image.fromarray(RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8))
            for copy in "ab":
                image.save(tmp_path / "dogs" / breed / f"{copy}{number}.png")

    def source(request: Request) -> Splits:
        return folder(request, path=str(tmp_path / "dogs"), size=(8, 8))

    data = pipeline.load(Data(load=source, validation="20%", cut="stratified"), Request())
    assert data.leaks == {"validation": 0, "test": 0}
    assert np.bincount(data.splits.test["targets"]).tolist() == [8, 8, 8]
    assert np.bincount(data.splits.validation["targets"]).tolist() in ([6, 6, 6], [6, 6, 8], [6, 8, 6], [8, 6, 6])
