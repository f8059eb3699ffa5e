"""Users' texts: one file for a character model, and folders of labelled texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fdl.data import sources
from fdl.data.formats import characters
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.text import text_file
from fdl.data.splits import Request
from fdl.types import UserError


@pytest.mark.parametrize(
    "alphabet", ["abc\n", "äöü\U0001f600xyz\r\n", "".join(map(chr, range(300, 900))), "a\ufffd\U0010ffff"]
)
@pytest.mark.parametrize("length", [1, 3, 5])
def test_encoding_chunks_and_windows_equal_plain_loops(alphabet: str, length: int) -> None:
    rng = np.random.default_rng(0)
    for count in (10, 11, 301):
        text = "".join(rng.choice(list(alphabet), count))
        known = characters.vocabulary(text[: count // 2], text)
        number = {character: place for place, character in enumerate(known)}
        tokens = characters.encode(text, known)
        assert tokens.tolist() == [number.get(character, len(known) - 1) for character in text]
        assert tokens.dtype == (np.uint8 if len(known) <= 256 else np.int32)
        chunks = characters.chunks(tokens, length)["inputs"]
        assert chunks.tolist() == [
            tokens[i * length : (i + 2) * length].tolist() for i in range(len(tokens) // length - 1)
        ]
        rows = characters.windows(tokens, length)
        pairs = [
            (before, after)
            for row, mask in zip(rows["inputs"].tolist(), rows["mask"], strict=True)
            for before, after, counts in zip(row, row[1:], mask, strict=False)
            if counts
        ]
        assert pairs == list(zip(tokens.tolist(), tokens[1:].tolist(), strict=False))


def test_a_text_longer_than_a_block_is_encoded_like_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = characters.encode("to be or not to be", list(" benort"))
    monkeypatch.setattr(characters, "_BLOCK", 5)
    np.testing.assert_array_equal(characters.encode("to be or not to be", list(" benort")), whole)
    assert characters.encode("", ["a"]).shape == (0,)


def test_a_text_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "Съешь же ещё этих мягких французских булок\n" * 40
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    splits = text_file(Request(data_dir=tmp_path), path="own.txt", length=16, eval_length=32)
    assert splits.facts.vocabulary == tuple(sorted(set(text)))
    assert (splits.name, splits.source) == ("own", "files")
    first = "".join(splits.facts.vocabulary[i] for i in splits.train["inputs"][0])
    assert first == text[:32]
    assert splits.validation is not None
    assert splits.test is not None
    count = len(text)
    assert splits.validation["mask"].sum() + splits.test["mask"].sum() == count - int(0.9 * count) - 2
    assert not caplog.records


def test_characters_that_training_lacks_are_said_and_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "own.txt").write_text("abcdefghij" * 90 + "xyzé" * 25)
    splits = text_file(Request(data_dir=tmp_path), path="own.txt", length=8)
    assert splits.facts.vocabulary == (*"abcdefghij", characters.UNKNOWN)
    (record,) = caplog.records
    assert "4 characters that the training text lacks ('x' 'y' 'z' 'é')" in record.getMessage()
    assert splits.test is not None
    assert set(splits.test["inputs"].ravel()) == {10, 0}  # 0 is padding


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 characters to train on are too few for windows of 128"),
        (b"short", "too few"),
        ("Füchse".encode("latin-1") * 300, "not UTF-8 text .*invalid start byte at byte 1|not UTF-8 text"),
        ("text".encode("utf-16") * 300, "not UTF-8 text .UTF-16.: save it as UTF-8"),
        (b"<!DOCTYPE html>" + b"a" * 5000, "HTML page"),
    ],
)
def test_what_is_no_text_or_too_short(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "own.txt").write_bytes(data)
    with pytest.raises(UserError, match=says) as caught:
        text_file(Request(data_dir=tmp_path), path="own.txt")
    assert "own.txt" in str(caught.value)
    with pytest.raises(UserError, match=r"no file or folder 'none.txt'"):
        text_file(Request(data_dir=tmp_path), path="none.txt")


def test_tiny_shakespeare_is_the_same_reader(tmp_path: Path) -> None:
    text = "To be, or not to be: that is the question.\n" * 60
    (tmp_path / "tiny-shakespeare").mkdir()
    (tmp_path / "tiny-shakespeare" / "input.txt").write_text(text)
    request = Request(source="files", data_dir=tmp_path, offline=True)
    public = sources.tiny_shakespeare(request, length=16, eval_length=32)
    own = text_file(request, path="tiny-shakespeare/input.txt", length=16, eval_length=32)
    assert public.facts == own.facts
    np.testing.assert_array_equal(public.train["inputs"], own.train["inputs"])


def reviews(folder: Path, count: int = 3) -> None:
    for name in ("neg", "pos"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}_1.txt").write_text(f"{name} {number}\nin two lines")


def test_folders_of_labelled_texts(tmp_path: Path) -> None:
    reviews(tmp_path / "imdb")
    splits = text_file(Request(data_dir=tmp_path), path="imdb")
    assert splits.facts.classes == ("neg", "pos")
    assert splits.train["inputs"].tolist()[0] == "neg 0\nin two lines"
    assert splits.train["inputs"].dtype == object
    assert splits.train["targets"].tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.test is splits.validation is None


def test_imdbs_layout(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2), ("val", 1)):
        reviews(tmp_path / "aclImdb" / split, count)
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir()
    (tmp_path / "aclImdb" / "train" / "unsup" / "0.txt").write_text("no label")
    splits = text_file(Request(data_dir=tmp_path), path="aclImdb")
    assert splits.facts.classes == ("neg", "pos")
    assert splits.test is not None
    assert splits.validation is not None
    assert [len(part["targets"]) for part in (splits.train, splits.test, splits.validation)] == [8, 4, 2]
    (tmp_path / "aclImdb" / "test" / "new").mkdir()
    (tmp_path / "aclImdb" / "test" / "new" / "0.txt").write_text("?")
    with pytest.raises(UserError, match="holds the classes new, which are not in train"):
        text_file(Request(data_dir=tmp_path), path="aclImdb")


def test_texts_that_cannot_be_read_are_all_listed_or_left_out(tmp_path: Path) -> None:
    reviews(tmp_path / "imdb")
    for name in ("neg/1_1.txt", "pos/2_1.txt"):
        (tmp_path / "imdb" / name).write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputs, match="first of 2 bad texts of 6") as caught:
        text_file(Request(data_dir=tmp_path), path="imdb")
    assert [Path(row.file).name for row in caught.value.rows] == ["1_1.txt", "2_1.txt"]
    splits = text_file(Request(data_dir=tmp_path, on_bad="skip"), path="imdb")
    assert len(splits.skipped) == 2
    assert splits.train["targets"].tolist() == [0, 0, 1, 1]
    (tmp_path / "one" / "only").mkdir(parents=True)
    (tmp_path / "one" / "only" / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"texts of 1 classes: lay them out as .*CLASS/\*\.txt"):
        text_file(Request(data_dir=tmp_path), path="one")
