"""Boxes from Pascal VOC's and COCO's files: what is read, and what hostile or broken files are answered with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fdl.data import Request
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.boxes import into_frame, out_of_frame
from fdl.data.formats.coco import coco_file
from fdl.data.formats.plain_xml import parse_xml
from fdl.data.formats.voc import bccd, voc_folder
from fdl.types import UserError

Corners = tuple[str, float, float, float, float]


def annotation(name: str, boxes: list[Corners], size: tuple[int, int] = (40, 30), before: str = "") -> str:
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for label, left, top, right, bottom in boxes
    )
    about = f"<filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"{before}<annotation>{about}{objects}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "cells"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    boxes: dict[str, list[Corners]] = {
        "a": [("red", 4, 2, 20, 22), ("white", 0, 0, 8, 8)],
        "b": [("red", 10, 10, 40, 30)],
        "c": [],
        "d": [("white", 1, 1, 3, 3)],
    }
    for number, (stem, held) in enumerate(boxes.items()):
        Image.new("RGB", (40, 30), (number * 60, 0, 0)).save(root / "JPEGImages" / f"{stem}.png")
        (root / "Annotations" / f"{stem}.xml").write_text(annotation(f"{stem}.png", held))
    for split, stems in (("train", "a b"), ("val", "c"), ("test", "d")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems.split()) + "\n")
    return root


def test_boxes_are_scaled_with_their_pictures(voc: Path) -> None:
    read = voc_folder(Request(), path=str(voc), size=(60, 80))
    assert read.classes == ("red", "white")
    np.testing.assert_array_equal(read.train["targets"]["classes"], [[0, 1], [0, -1]])
    np.testing.assert_allclose(read.train["targets"]["boxes"][0], [[8, 4, 40, 44], [0, 0, 16, 16]])
    assert read.validation is not None
    assert (read.validation["targets"]["classes"] == -1).all()
    wide = voc_folder(Request(), path=str(voc), size=(30, 60))
    np.testing.assert_allclose(
        wide.train["targets"]["boxes"][0, 0], [14, 2, 30, 22]
    )  # 10 pixels of ground at each side
    for shape in ((40, 30), (33, 77), (640, 480)):
        corners = np.array([[3, 4, 20, 25], [0, 0, shape[0], shape[1]]], float)
        np.testing.assert_allclose(
            out_of_frame(into_frame(corners, shape, (24, 50)), shape, (24, 50)), corners, atol=1e-9
        )


def _xml(voc: Path, text: str) -> None:
    (voc / "Annotations" / "a.xml").write_text(text)


BOMB = '<!DOCTYPE bomb [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
FOREIGN = '<!DOCTYPE own SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: _xml(f, annotation("a.png", [("red", 4, 4, 4, 9)])), "box 1: it has no area"),
        (lambda f: _xml(f, annotation("a.png", [("red", 9, 4, 4, 9)])), "box 1: it has no area"),
        (lambda f: _xml(f, annotation("a.png", [("red", 50, 4, 60, 9)])), "outside the picture of 40 x 30"),
        (lambda f: _xml(f, annotation("a.png", [("blue", 1, 4, 9, 9)])), "'blue' is not among the classes red, white"),
        (lambda f: _xml(f, annotation("a.png", [("red", float("nan"), 4, 9, 9)])), "'nan' is no number"),
        (lambda f: _xml(f, annotation("a.png", [], before=BOMB)), "declares a document type"),
        (lambda f: _xml(f, annotation("a.png", [], before=FOREIGN)), "declares a document type"),
        (lambda f: _xml(f, "<annotation>"), "it is no XML"),
        (lambda f: _xml(f, "<a>" * 200), "deeper than"),
        (lambda f: _xml(f, "<annotation><size/></annotation>"), "no <filename>"),
        (lambda f: _xml(f, annotation("../secret.png", [])), "leads out of the folder"),
        (lambda f: _xml(f, annotation("/etc/passwd", [])), "leads out of the folder"),
        (lambda f: _xml(f, annotation("a.png", [], size=(41, 30))), "it is 40 x 30, its annotation says 41 x 30"),
        (lambda f: (f / "JPEGImages" / "a.png").write_bytes(b"no picture"), "a.png"),
        (lambda f: (f / "Annotations" / "a.xml").unlink(), "No such file"),
    ],
)
def test_what_is_bad_is_one_line_and_left_out_on_demand(voc: Path, spoil: Any, said: str) -> None:
    spoil(voc)
    with pytest.raises(BadInputs, match=said) as raised:
        voc_folder(Request(), path=str(voc), classes=("red", "white"))
    assert "\n" not in str(raised.value)
    read = voc_folder(Request(on_bad="skip"), path=str(voc), classes=("red", "white"))
    assert read.skipped
    assert (read.train["targets"]["classes"][-1] == 0).any()


def test_entities_are_never_expanded() -> None:
    with pytest.raises(ValueError, match="document type"):
        parse_xml(f"{BOMB}<a>&b;</a>".encode())
    assert parse_xml(b"<a><b> x&lt;y </b></a>").find("b") == "x<y"
    with pytest.raises(ValueError, match="over the limit"):
        parse_xml(b"<a>" + b" " * (5 << 20) + b"</a>")


def coco_content(tmp_path: Path) -> dict[str, Any]:
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")
    return {
        "images": [{"id": 7 + number, "file_name": f"{number}.png", "width": 40, "height": 30} for number in range(3)],
        "categories": [{"id": 3, "name": "white"}, {"id": 1, "name": "red"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [4, 2, 16, 20], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 8, 8]},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
    }  # fmt: skip


def test_a_coco_file_and_one_of_its_test_split(tmp_path: Path) -> None:
    content = coco_content(tmp_path)
    (tmp_path / "own.json").write_text(json.dumps(content))
    (tmp_path / "held.json").write_text(
        json.dumps({**content, "images": content["images"][:1], "annotations": content["annotations"][:1]})
    )
    read = coco_file(Request(), path=str(tmp_path / "own.json"), test=str(tmp_path / "held.json"), size=(30, 40))
    assert read.classes == ("white", "red")
    np.testing.assert_array_equal(read.train["targets"]["classes"], [[1], [-1], [0]])
    np.testing.assert_allclose(read.train["targets"]["boxes"][0, 0], [4, 2, 20, 22])
    assert read.test is not None
    assert len(read.test["inputs"]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held["annotations"][0].update(category_id=99), "unknown picture or category"),
        (lambda held: held["annotations"][0].update(image_id=99), "unknown picture or category"),
        (lambda held: held["annotations"][0].update(bbox=[1, 2]), "no file of COCO annotations"),
        (lambda held: held.pop("images"), "no file of COCO annotations"),
        (lambda held: held["images"][0].update(file_name="../0.png"), "leads out of the folder"),
        (lambda held: held["annotations"][0].update(bbox=[4, 2, 0, 20]), "it has no area"),
        (lambda held: held["annotations"][0].update(bbox=[-9, 2, 5, 20]), "outside the picture"),
    ],
)
def test_a_bad_coco_file_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    content = coco_content(tmp_path)
    change(content)
    (tmp_path / "own.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as raised:
        coco_file(Request(), path=str(tmp_path / "own.json"))
    assert "\n" not in str(raised.value)


def test_the_command_line_trains_on_a_folder_predicts_and_refuses_a_bad_annotation(
    voc: Path, tmp_path: Path, fdl_main: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    common = ["--experiment=bccd_detector", f"--workdir={tmp_path / 'run'}", "--set", f"data=voc:{voc},size=32,40"]
    changes = [
        "model.width=4",
        "model.head=4",
        "batch_size=4",
        "eval_batch_size=4",
        "steps=2",
        "data.augment.mosaic.probability=0",
        "task.least_score=0",
    ]
    more = [part for change in changes for part in ("--set", change)]
    done = fdl_main(*common, *more)
    assert done.returncode == 0, done.stderr
    assert "test/map_50" in done.stdout
    done = fdl_main(*common, *more, "--mode=predict", f"--input={voc / 'JPEGImages'}")
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "run").rglob("predictions.csv")
    assert {line.split(",")[0] for line in table.read_text().splitlines()[1:]} == {"a.png", "b.png", "c.png", "d.png"}
    _xml(voc, annotation("a.png", [("red", 4, 4, 4, 9)]))
    done = fdl_main(*common[:1], f"--workdir={tmp_path / 'other'}", *common[2:])
    assert done.returncode == 2
    assert "box 1: it has no area" in done.stderr


def test_bccd_is_the_publishers_without_two_empty_boxes(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bccd: no folder"):
        bccd(Request(data_dir=tmp_path))
    if not (data_dir / "bccd").is_dir():
        pytest.skip("no real data: bccd")
    read = bccd(Request(data_dir=data_dir), size=(24, 32))
    parts = [rows for rows in (read.train, read.validation, read.test) if rows]
    assert [len(rows["inputs"]) for rows in parts] == [205, 87, 72]
    counts = sum(
        np.bincount(rows["targets"]["classes"][rows["targets"]["classes"] >= 0], minlength=3) for rows in parts
    )
    assert dict(zip(read.classes, map(int, counts), strict=True)) == {"RBC": 4153, "WBC": 372, "Platelets": 361}
    assert read.notes == ["2 boxes without area are left out"]
