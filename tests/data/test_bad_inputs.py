"""Bad images and rows: all of them listed, then refused or left out."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import picture

from fdl.data import Data, pipeline, sources
from fdl.data.digests import sha256_of
from fdl.data.formats import images
from fdl.data.formats.bad_inputs import Bad, BadInputs, write_bad_inputs
from fdl.data.splits import Request
from fdl.types import UserError

pytestmark = pytest.mark.usefixtures("own_folders")


def spoil(pets: Path) -> list[str]:
    (pets / "cat" / "1.png").write_bytes(picture()[:40])
    (pets / "cat" / "empty.jpg").touch()
    (pets / "dog" / "page.jpg").write_bytes(b"<html>")
    (pets / "dog" / "folder.png").mkdir()
    (pets / "dog" / "loop.png").symlink_to("loop.png")
    return ["cat/1.png", "cat/empty.jpg", "dog/folder.png", "dog/loop.png", "dog/page.jpg"]


def test_all_bad_images_are_listed_before_any_is_refused(pets: Path) -> None:
    names = spoil(pets)
    with pytest.raises(BadInputs) as caught:
        sources.folder(Request(), path=str(pets))
    assert [row.file for row in caught.value.rows] == [str(pets / name) for name in names]
    reasons = [row.reason for row in caught.value.rows]
    assert reasons[1:] == ["it is empty", "it is a folder", "it is a link that leads nowhere", "it is an HTML page"]
    assert "cat/1.png" in str(caught.value)
    assert "first of 5 bad images of 14" in str(caught.value)
    assert "on_bad=skip" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_images_are_skipped_and_counted(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = sources.folder(Request(), path=str(pets))
    assert not sound.skipped
    (pets / "cat" / "extra.png").write_bytes(b"\x89PNG")
    data = Data(load=lambda request: sources.folder(request, path=str(pets)), on_bad="skip")
    splits = pipeline.load(data, Request()).splits
    assert splits.sha256 == sha256_of(sound.train, sound.test)
    assert [row.file for row in splits.skipped] == [str(pets / "cat" / "extra.png")]
    (record,) = caplog.records
    assert "1 of 11 images are bad and left out" in record.message


def test_bad_images_of_both_splits_are_listed(pets: Path) -> None:
    shutil.copytree(pets, pets / "train")
    shutil.copytree(pets / "train", pets / "test")
    for split in ("train", "test"):
        (pets / split / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(BadInputs) as caught:
        sources.folder(Request(), path=str(pets))
    assert len(caught.value.rows) == 2


def test_a_class_with_no_good_image_left_is_said(pets: Path) -> None:
    for path in list((pets / "dog").iterdir())[1:]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class dog has 1 good images"):
        sources.folder(Request(on_bad="skip"), path=str(pets))


def test_odd_names_and_links_out_of_the_folder(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(picture())
    (pets / "cat" / "out.png").symlink_to(tmp_path / "elsewhere.png")  # the user's own link: followed
    for name in (b"a\nb.png", b"\xff\xfe.png", b"-rf.png", b"=1+1.png", "漢字.png".encode()):
        (pets / "dog" / os.fsdecode(name)).write_bytes(picture())
    for name in (".DS_Store", "._0.png", "Thumbs.db"):
        (pets / "dog" / name).write_bytes(b"x")
    splits = sources.folder(Request(), path=str(pets))
    assert len(splits.train["targets"]) + len(splits.test["targets"]) == 16
    (pets / "dog" / os.fsdecode(b"bad\n\xff.png")).touch()
    with pytest.raises(BadInputs) as caught:
        sources.folder(Request(), path=str(pets))
    assert str(caught.value).isprintable()
    assert "bad\\n\\udcff.png" in str(caught.value)


def test_a_pipe_is_not_waited_for_and_sizes_are_checked(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(pets / "dog" / "pipe.png")
    with pytest.raises(BadInputs, match="no regular file"):
        sources.folder(Request(), path=str(pets))
    (pets / "dog" / "pipe.png").unlink()
    with pytest.raises(UserError, match="over the limit of 50,000,000 pixels"):
        sources.folder(Request(), path=str(pets), size=(1 << 20, 1 << 20))
    monkeypatch.setattr(os, "sysconf", lambda name: 2000 if name == "SC_PHYS_PAGES" else 4)
    with pytest.raises(UserError, match="GiB, over half of"):
        sources.folder(Request(), path=str(pets), lazy=False)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, form: str) -> None:
    for values, expected in (([[200, 200], [200, 200]], [1, 1, 1, 1]), ([[0, 257], [32896, 65535]], [0, 1, 128, 255])):
        Image.fromarray(np.uint16(values)).save(tmp_path / "x.tif", form)
        assert images.read(tmp_path / "x.tif", (2, 2), 1).ravel().tolist() == expected


HEADER = "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,median_income"
HEADER += ",median_house_value,ocean_proximity"
ROW = "-122.2,37.8,41.0,880.0,129.0,322.0,126.0,8.3,{},{}"


def table(tmp_path: Path, data: bytes) -> Request:
    (tmp_path / "tabular").mkdir(exist_ok=True)
    (tmp_path / "tabular" / "california-housing.csv").write_bytes(data)
    return Request(source="files", data_dir=tmp_path, offline=True)


BAD_LINES = {
    3: (ROW.format("", "A"), "column median_house_value", "cannot be missing"),
    5: ("1,2", "", "2 cells, the header has 10"),
    6: (ROW.format("nan", "A"), "column median_house_value", "'nan': it is the target and cannot be missing"),
    8: (ROW.format("1e30", "A"), "column median_house_value", "beyond 1e+18"),
    9: (ROW.format("1", '"A'), "", "quote is left open"),
    11: (ROW.format("1", "A\0"), "", "NUL byte"),
    12: (ROW.format("1_000", "A"), "column median_house_value", "'1_000' is no number"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_bad_rows_are_all_listed_by_line_or_left_out(tmp_path: Path, end: str, bom: str) -> None:
    good = {4: "../../etc/passwd", 7: '"quoted, ""so"""', 10: "=1+1"}
    lines = [HEADER] + [
        BAD_LINES[number][0] if number in BAD_LINES else ROW.format(number, good.get(number, "INLAND"))
        for number in range(2, 14)
    ]
    request = table(tmp_path, (bom + end.join(lines) + end).encode() + b"\xe9" + ROW.format(1, "A").encode())
    with pytest.raises(BadInputs) as caught:
        sources.california_housing(request)
    found = caught.value.rows
    assert [row.place.split(",")[0] for row in found] == [f"line {number}" for number in (*BAD_LINES, 14)]
    for row, (_, column, says) in zip(found, BAD_LINES.values(), strict=False):
        assert column in row.place
        assert says in row.reason
    assert "0xe9" in found[-1].reason
    splits = sources.california_housing(Request(**vars(request) | {"on_bad": "skip"}))
    assert splits.skipped == found
    targets = np.concatenate([splits.train["targets"], splits.test["targets"]]) * 1e5
    assert sorted(np.rint(targets)) == [2, 4, 7, 10, 13]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (HEADER.encode(), "0 good rows"),
        (b"<!DOCTYPE html>\n<html>", "HTML page"),
        ((HEADER + "\n").encode("utf-16"), "UTF-16"),
        (HEADER.replace(",", ";").encode() + b"\n1;2\n" * 2, "first line has 10 cells and no other line has as many"),
        (b"a,b\n1,2\n", "columns .*'longitude', .* are missing"),
        (b"\0\0\n", "header cannot be read: a NUL byte"),
        (b'"' + HEADER.encode(), "header cannot be read: a quote"),
    ],
)
@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_what_is_no_table_is_refused_whole(tmp_path: Path, data: bytes, says: str, on_bad: str) -> None:
    request = table(tmp_path, data)
    with pytest.raises(UserError, match=says) as caught:
        sources.california_housing(Request(**vars(request) | {"on_bad": on_bad}))
    assert not isinstance(caught.value, BadInputs)
    assert "california-housing.csv" in str(caught.value)


def test_the_list_is_a_csv_that_no_spreadsheet_runs(tmp_path: Path) -> None:
    rows = [
        Bad("=cmd|' /C calc'!A0", "", "-1"),
        Bad("a,b\n.png", "line 2, column x", '+say "x"'),
        Bad("@x", "", "漢\ud800"),
    ]
    path = write_bad_inputs(rows, tmp_path / "new")
    with path.open(encoding="utf-8", newline="") as file:
        held = list(csv.reader(file))
    assert held == [
        ["file", "place", "reason"], ["'=cmd|' /C calc'!A0", "", "'-1"], ["a,b\\n.png", "line 2, column x", "'+say \"x\""],
        ["'@x", "", "漢\\ud800"],
    ]  # fmt: skip
    assert [entry.name for entry in path.parent.iterdir()] == ["bad_inputs.csv"]
    with pytest.raises(UserError, match="cannot be written"):
        write_bad_inputs(rows, path)
