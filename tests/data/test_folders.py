"""A user's own folders: every usual layout is read, what is left out is said, and pictures are the same read now or later."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fdl.data import Data, Splits, pipeline, sources
from fdl.data.columns import read_all
from fdl.data.formats import class_folders, images, listing, picture_rows
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.frames import DRAWS, middle, random_box
from fdl.data.splits import Request
from fdl.types import UserError

pytestmark = pytest.mark.usefixtures("own_folders")


def draw(root: Path, *paths: str) -> None:
    """Pictures whose grey is their number in `paths`, plus ten."""
    for number, path in enumerate(paths, 10):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (5, 4), number).save(root / path, "PNG")


def load(root: Path, on_bad: str = "stop", **more: object) -> Splits:
    return sources.folder(Request(on_bad=on_bad), path=str(root), size=(4, 5), channels=1, **more)  # type: ignore[arg-type]


def held(splits: Splits) -> dict[str, list[tuple[int, str]]]:
    """{split: [(a picture's grey, its class)]}, sorted."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        name: sorted(
            (int(image[0, 0, 0]), splits.classes[label])
            for image, label in zip(np.asarray(rows["inputs"]), rows["targets"], strict=True)
        )
        for name, rows in parts.items()
        if rows is not None
    }


def counts(splits: Splits) -> dict[str, int]:
    return dict(Counter(label for rows in held(splits).values() for _, label in rows))


@pytest.mark.parametrize("train", ["train", "Training", "training_set", "TRAIN"])
@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev", "Validation-Set"])
@pytest.mark.parametrize("test", ["test", "Testing", "test images"])
def test_splits_of_every_usual_name(tmp_path: Path, train: str, validation: str, test: str) -> None:
    draw(tmp_path / "set", f"{train}/a/1.png", f"{train}/b/1.png", f"{validation}/b/1.png", f"{test}/a/1.png")
    assert held(load(tmp_path / "set")) == {
        "train": [(10, "a"), (11, "b")], "validation": [(12, "b")], "test": [(13, "a")],
    }  # fmt: skip


def test_a_validation_folder_without_a_test_folder_chooses_nothing(tmp_path: Path) -> None:
    draw(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")
    splits = load(tmp_path)
    assert held(splits) == {"train": [(10, "a"), (11, "b")], "test": [(12, "a"), (13, "b")]}
    assert "the validation folder is the test split" in splits.notes[0]


def test_training_alone_and_test_pictures_without_labels(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *(f"train/{name}/{i}.png" for name in "ab" for i in range(10)),
        "test/1.png",
        "test/2.png",
        "other/x/1.png",
    )
    splits = load(tmp_path)
    assert {name: len(rows) for name, rows in held(splits).items()} == {"train": 16, "test": 4}
    assert splits.notes == ["pictures in no class folder are left out: 1 in other, 2 in test"]
    assert not {30, 31, 32} & {grey for rows in held(splits).values() for grey, _ in rows}


def test_classes_may_have_the_names_of_splits(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{i}.png" for name in ("bus", "car", "train") for i in range(3)))
    assert counts(load(tmp_path)) == {"bus": 3, "car": 3, "train": 3}


def test_splits_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "inner", *(f"{name}/{split}/1.png" for name in "ab" for split in ("train", "test")))
    with pytest.raises(UserError, match=r"put class folders into split folders.* \(train/a\)"):
        load(tmp_path / "inner")
    draw(tmp_path / "none", *(f"{split}/{name}/1.png" for name in "ab" for split in ("val", "test")))
    with pytest.raises(UserError, match="holds test, val and no folder train"):
        load(tmp_path / "none")
    draw(tmp_path / "more", "train/a/1.png", "train/b/1.png", "test/c/1.png", "val/a/1.png")
    with pytest.raises(UserError, match=r"the test split holds \['c'\]"):
        load(tmp_path / "more")


def test_folders_in_class_folders_belong_to_the_class(tmp_path: Path) -> None:
    draw(
        tmp_path,
        "cat/1.png",
        "cat/wild/1.png",
        "cat/wild/deep/1.png",
        "dog/1.png",
        "dog/2.png",
        "owl/barn/1.png",
        "owl/snow/1.png",
    )
    assert counts(load(tmp_path)) == {"cat": 3, "dog": 2, "owl": 2}


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    draw(
        tmp_path,
        "cat/1.png",
        "cat/2.png",
        "dog/1.png",
        "dog/2.png",
        ".ipynb_checkpoints/1-checkpoint.png",
        "cat/.cache/1.png",
    )
    assert counts(load(tmp_path)) == {"cat": 2, "dog": 2}


def test_a_class_that_is_missing_in_validation_moves_no_label(tmp_path: Path) -> None:
    draw(
        tmp_path,
        *(f"train/{name}/{i}.png" for name in "abc" for i in range(2)),
        "val/a/1.png",
        "val/c/1.png",
        "test/c/1.png",
    )
    assert [name for rows in held(load(tmp_path)).values() for _, name in rows if name == "c"] == ["c"] * 4


def test_folders_around_everything_are_stepped_into(tmp_path: Path) -> None:
    draw(tmp_path, *(f"set/v1/{name}/{i}.png" for name in "ab" for i in range(2)))
    assert counts(load(tmp_path)) == {"a": 2, "b": 2}
    draw(tmp_path / "cut", "set/train/a/1.png", "set/train/b/1.png", "set/test/b/1.png")
    assert held(load(tmp_path / "cut"))["test"] == [(12, "b")]


def test_what_is_left_out_is_counted_by_its_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path, *(f"{name}/{i}.jfif" for name in "ab" for i in range(3)), "a/scan", "b/scan", "top.png")
    for name in ("a/x.xcf", "b/x.XCF", "c/x.psd", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    for name in ("a/.DS_Store", "a/Thumbs.db", "desktop.ini", "lost+found/1.png", "__MACOSX/a/._1.png", ".git/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    splits = load(tmp_path)
    assert counts(splits) == {"a": 3, "b": 3}
    assert splits.notes == [
        "no picture in c (1 .psd): it is left out",
        "no picture in empty (it is empty): it is left out",
        "pictures in no class folder are left out: 1 in the folder itself",
        "files not named like pictures are left out: 2 without a suffix, 2 .xcf, 1 .psd, 1 .txt",
    ]
    assert "; ".join(splits.notes) in caplog.text


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("1.heic", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC, which is read after pip install pillow-heif"),
        ("1.avif", b"\0\0\0\x18ftypavif" + bytes(40), "AVIF, damaged"),
        ("1.jpg", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("1.png", b"\xef\xbb\xbf\n<!DOCTYPE html>", "an HTML page"),
        ("1.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        ("1.png", b"\0\0\0\x18ftypmp42", "a film"),
    ],
)
def test_what_is_no_picture_is_said_to_be_what_it_is(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: it is .*{says}"):
        images.read(tmp_path / name, (4, 4))


def test_avif_is_read_where_pillow_has_it(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "a/3.avif")
    splits = load(tmp_path)
    assert counts(splits) == {"a": 3, "b": 2}
    assert any(abs(grey - 90) <= 2 for rows in held(splits).values() for grey, _ in rows)


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere", "1.png", "2.png")
    draw(tmp_path / "set", "a/1.png", "a/2.png", "b/1.png")
    (tmp_path / "set/b/album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/c").symlink_to(tmp_path / "elsewhere")
    assert counts(load(tmp_path / "set")) == {"a": 2, "b": 3, "c": 2}


RIGHTS = """
import os, sys
from PIL import Image
Image.init()
from fdl.data import sources
from fdl.data.formats import folders, tfds
from fdl.data.splits import Request
from fdl.types import UserError
import numpy.random
os.setgid(12345); os.setuid(12345)
for name in ("folder", "files", "whole"):
    for on_bad in ("stop", "skip"):
        try:
            print(name, on_bad, len(sources.folder(Request(on_bad=on_bad), path=name, size=(4, 4)).classes))
        except UserError as error:
            print(name, on_bad, error)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give up its rights")
def test_what_may_not_be_read_is_one_line_or_left_out() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to everybody else
        root = Path(name)
        for part in ("folder", "files", "whole"):
            draw(root / part, *(f"{label}/{i}.png" for label in "abc" for i in range(3)))
        root.chmod(0o755)
        for closed in ("folder/c", "files/c/1.png", "whole"):
            (root / closed).chmod(0)
        done = subprocess.run([sys.executable, "-c", RIGHTS], cwd=root, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
    assert "folder/c: the folder may not be read: Permission denied; correct or remove" in lines[0]
    assert lines[1] == "folder skip 2"
    assert "files/c/1.png: Permission denied; correct or remove" in lines[2]
    assert lines[3] == "files skip 3"
    assert len(lines) == 6
    assert all("whole may not be read: Permission denied" in line for line in lines[4:])


# Labels from a table


def kaggle(root: Path, table: str, *names: str) -> None:
    draw(root, *names)
    (root / "labels.csv").write_text(table)


def test_a_table_of_labels_as_kaggle_has_it(tmp_path: Path) -> None:
    names = [f"train/{i:03}.png" for i in range(20)]
    rows = "".join(f"{i:03},{'boxer' if i % 2 else 'akita'}\n" for i in range(20))
    kaggle(tmp_path, "id,breed\n" + rows, *names, "test/000.png", "test/900.png")
    for splits in (load(tmp_path, labels="labels.csv"), load(tmp_path / "labels.csv")):
        assert splits.classes == ("akita", "boxer")
        found = held(splits)
        assert sorted(found["train"] + found["test"]) == [(10 + i, ("akita", "boxer")[i % 2]) for i in range(20)]
        assert len(found["test"]) == 4
        assert splits.notes == ["pictures without a label are left out: 2 in test"]


@pytest.mark.parametrize(
    "table",
    [
        "file,label\na.png,3\nb.png,20\nc.png,3\nd.png,20\n",
        "label;image\r\n3;a\r\n20;b\r\n3;c\r\n20;d\r\n",
        "\ufeff,name\tclass\n".replace(",", "")
        + "./a.png\t3\nb.png\t20\nsub/../c\t3\n".replace("sub/../", "")
        + "d\t20\n",
        "a.png,3\nb.png,20\nc.png,3\nd.png,20\n",
        ",path,label,weight\n0,a.png,3,.5\n1,b.png,20,1\n2,c.png,3,1\n3,d.png,20,1\n",
        'id,label\n"a.png","3"\n"b.png","20"\n\nc.png,3\nd.png,20\n',
        "id,label\nimg\\a.png,3\nimg\\b.png,20\nimg\\c,3\nimg\\d,20\n",
    ],
)
def test_tables_of_several_forms_say_the_same(tmp_path: Path, table: str) -> None:
    where = "img/" if "img" in table else ""
    kaggle(tmp_path, table, *(f"{where}{name}.png" for name in "abcd"))
    splits = load(tmp_path, labels="labels.csv")
    assert splits.classes == ("3", "20")  # by value, not by spelling
    found = held(splits)
    assert sorted(found["train"] + found["test"]) == [(10, "3"), (11, "20"), (12, "3"), (13, "20")]


def test_a_table_beside_splits_keeps_them(tmp_path: Path) -> None:
    kaggle(
        tmp_path,
        "file,label\ntrain/a.png,x\ntrain/b.png,y\ntest/a.png,y\nval/a.png,x\n",
        "train/a.png",
        "train/b.png",
        "test/a.png",
        "val/a.png",
    )
    found = held(load(tmp_path, labels="labels.csv"))
    assert found == {"train": [(10, "x"), (11, "y")], "test": [(12, "y")], "validation": [(13, "x")]}


def test_wrong_rows_are_all_listed_or_left_out(tmp_path: Path) -> None:
    good = "".join(f"{name}.png,{label}\n" for name, label in zip("abcd", "xyxy", strict=True))
    bad = "e.png,\nnone.png,x\na.png,y\nf.png\ntwin.png,x\n"
    kaggle(tmp_path, "file,label\n" + good + bad, *(f"{name}.png" for name in "abcdef"), "p/twin.png", "q/twin.png")
    with pytest.raises(BadInputs) as caught:
        load(tmp_path, labels="labels.csv")
    assert {row.place: row.reason for row in caught.value.rows} == {
        "line 6": "it has no label",
        "line 7": "'none.png' names no picture",
        "line 8": "'a.png' has another label above",
        "line 9": "1 cells, the header has 2; correct the line",
        "line 10": "'twin.png' names 2 pictures",
    }
    assert counts(load(tmp_path, "skip", labels="labels.csv")) == {"x": 2, "y": 2}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "there is no table of labels"), ("", "labels.csv is empty"), ("file\na.png\n", "no two columns"),
        ("<html>", "HTML page"),
        ("id,label\n7,x\n8,y\n", "names no picture"), ("file,colour,size\na.png,red,1\n", "which column is the label"),
        ('file,label\n"a.png,x\n', "a quote is left open"), ("file,label\na.png,x\nb.png,x\n", "1 classes"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_labels_is_one_line(tmp_path: Path, table: str | None, says: str) -> None:
    draw(tmp_path, "a.png", "b.png")
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=says) as caught:
        load(tmp_path, labels="labels.csv")
    assert "\n" not in str(caught.value)
    assert "labels" in str(caught.value)


def test_the_label_s_column_can_be_named(tmp_path: Path) -> None:
    kaggle(
        tmp_path,
        "file,colour,size\na.png,red,1\nb.png,blue,1\nc.png,red,1\nd.png,blue,1\n",
        *(f"{n}.png" for n in "abcd"),
    )
    assert load(tmp_path, labels="labels.csv", label_column="colour").classes == ("blue", "red")


# In memory, or batch by batch


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_same_bits_now_or_later(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + i, 20 - i, 3), np.uint8)).save(path)
    now, later = (
        sources.folder(Request(), path=str(tmp_path), size=(7, 11), channels=channels, lazy=lazy)  # type: ignore[arg-type]
        for lazy in (False, True)
    )
    assert isinstance(now.train["inputs"], np.ndarray)
    assert not isinstance(later.train["inputs"], np.ndarray)
    for one, other in ((now.train, later.train), (now.test, later.test)):
        assert other["inputs"].shape == one["inputs"].shape == (len(one["targets"]), 7, 11, channels)
        np.testing.assert_array_equal(np.asarray(other["inputs"]), one["inputs"])
        np.testing.assert_array_equal(other["targets"], one["targets"])
    stream = pipeline.Stream(3, 4, len(now.train["targets"]))
    for one, other in zip(*(pipeline.feed("numpy", each.train, stream, 0, 5) for each in (now, later)), strict=True):
        np.testing.assert_array_equal(one["inputs"], other["inputs"])


def test_large_sets_are_decoded_later_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(3)))
    assert isinstance(load(tmp_path).train["inputs"], np.ndarray)
    monkeypatch.setattr(picture_rows, "IN_MEMORY_BYTES", 6 * 4 * 5 - 1)
    assert not isinstance(load(tmp_path).train["inputs"], np.ndarray)
    assert isinstance(load(tmp_path, lazy=False).train["inputs"], np.ndarray)


def test_random_crops_of_any_folder_and_any_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for i in range(4):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40), np.uint8)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    splits = sources.folder(Request(), path=str(tmp_path), size=(6, 9), channels=1, crop=True)
    column, uniforms = splits.train["inputs"], rng.random((2, *DRAWS))
    with Image.open(column.name(int(column.rows[0]))) as image:
        for got, box in (
            (np.asarray(column[:1]), middle(40, 30, 9 / 6)),
            (read_all(column[:1], uniforms[:1]), random_box(40, 30, uniforms[0])),
        ):
            expected = np.asarray(image.resize((9, 6), Image.Resampling.BILINEAR, box))
            np.testing.assert_array_equal(got[0, ..., 0], expected)
    left, upper, right, lower = middle(40, 30, 9 / 6)
    assert (right - left) / (lower - upper) == pytest.approx(9 / 6)
    assert right - left == pytest.approx(40 * 224 / 256)
    with pytest.raises(UserError, match="crop"):
        sources.folder(Request(), path=str(tmp_path), crop=True, lazy=False)


def zoo() -> dict[str, tuple[Image.Image, dict[str, object]]]:
    """Pictures whose left half is 30 and whose right half is 220, however they are stored."""
    base = np.full((16, 16, 3), 30, np.uint8)
    base[:, 8:] = 220
    rgb = Image.fromarray(base)
    grey = np.asarray(rgb.convert("L"))
    turned = Image.Exif()
    turned[0x0112] = 6
    see_through = rgb.convert("RGBA")
    return {
        "16.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "16.tif": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "32.tif": (Image.fromarray(grey.astype(np.int32) * 257), {}),
        "unit.tif": (Image.fromarray(grey / np.float32(255)), {}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 100}),
        "palette.png": (rgb.quantize(4), {}),
        "alpha.png": (see_through, {}),
        "exif.jpg": (rgb.transpose(Image.Transpose.ROTATE_90), {"exif": turned, "quality": 100}),
    }


@pytest.mark.parametrize("name", zoo())
@pytest.mark.parametrize("channels", [1, 3])
def test_one_decoder_for_pictures_in_memory_and_for_columns(tmp_path: Path, name: str, channels: int) -> None:
    image, options = zoo()[name]
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            image.save(tmp_path / label / f"{i}{name}", **options)  # type: ignore[arg-type]
    for more in ({"lazy": False}, {"lazy": True}, {"crop": True}):
        splits = sources.folder(Request(), path=str(tmp_path), size=(16, 16), channels=channels, **more)  # type: ignore[arg-type]
        pixels = np.asarray(splits.train["inputs"]).astype(int)
        assert np.abs(pixels[:, 2:-2, 2:6] - 30).max() <= 4, more
        assert np.abs(pixels[:, 2:-2, 10:-2] - 220).max() <= 4, more


def test_bad_pictures_of_a_column_are_left_out_as_in_memory(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(6)))
    (tmp_path / "a/2.png").write_bytes(b"x")
    (tmp_path / "b/5.png").write_bytes((tmp_path / "b/4.png").read_bytes()[:50])
    now, later = (load(tmp_path, "skip", lazy=lazy) for lazy in (False, True))
    assert now.skipped == later.skipped
    assert len(now.skipped) == 2
    assert held(now) == held(later)
    data = Data(load=lambda request: load(tmp_path, request.on_bad, lazy=True), on_bad="skip", validation=2)
    prepared = pipeline.load(data, Request()).splits
    stream = pipeline.Stream(0, 5, len(prepared.train["targets"]))
    assert len(list(pipeline.feed("auto", prepared.train, stream, 0, 20))) == 20


def test_labels_of_many_classes_are_looked_up_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N lookups, not N times C comparisons."""

    class Name(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    draw(tmp_path, *(f"c{name:03}/{i}.png" for name in range(60) for i in range(2)))
    monkeypatch.setattr(listing, "parts_of", lambda path: tuple(map(Name, path.split("/"))))
    monkeypatch.setattr(class_folders, "parts_of", listing.parts_of)
    splits = load(tmp_path)
    assert len(splits.classes) == 60
    assert Name.compared < 60 * 120
