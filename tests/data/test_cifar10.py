"""CIFAR-10: the official files in every place they may lie, every damage refused by name, a stand-in that says so."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fdl.data import Request, sources
from fdl.data.formats import cifar
from fdl.types import UserError

BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)]
COUNTS = dict.fromkeys(BATCHES, 4) | {"test_batch.bin": 3}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))


def files() -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """({name: bytes}, {name: (images [N, 32, 32, 3], labels [N])}) of six small files."""
    rng = np.random.default_rng(0)
    held, rows = {}, {}
    for name, count in COUNTS.items():
        images, labels = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, count)
        parts = []
        for image, label in zip(images, labels, strict=True):
            parts.append(bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3)))
        held[name], rows[name] = b"".join(parts), (images, labels)
    return held, rows


def write(folder: Path, held: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in held.items():
        (folder / name).write_bytes(data)


def pack(path: Path, held: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in held.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


PLACES: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "cifar10/cifar-10-batches-bin": lambda root, held: write(root / "cifar10" / "cifar-10-batches-bin", held),
    "cifar-10-batches-bin": lambda root, held: write(root / "cifar-10-batches-bin", held),
    "cifar10": lambda root, held: write(root / "cifar10", held),
    "cifar10/cifar-10-binary.tar.gz": lambda root, held: pack(root / "cifar10" / "cifar-10-binary.tar.gz", held),
    "cifar-10-binary.tar.gz": lambda root, held: pack(root / "cifar-10-binary.tar.gz", held),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_official_files_are_read_wherever_they_lie(tmp_path: Path, place: str) -> None:
    held, rows = files()
    PLACES[place](tmp_path / "data", held)
    splits = sources.cifar10(Request(data_dir=tmp_path / "data", offline=True))
    assert (splits.name, splits.source) == ("cifar10", "files")
    assert str(tmp_path / "data" / place) in splits.where
    assert "20 + 3" in splits.where  # not the whole set, and it says so
    assert splits.classes[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(splits.train["inputs"], np.concatenate([rows[name][0] for name in BATCHES]))
    np.testing.assert_array_equal(splits.train["targets"], np.concatenate([rows[name][1] for name in BATCHES]))
    np.testing.assert_array_equal(splits.test["inputs"], rows["test_batch.bin"][0])
    assert splits.train["inputs"].dtype == np.uint8
    assert splits.train["targets"].dtype == np.int32


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda data: data[:-1], "12,291 bytes are not a whole number of records of 3,073"),
    "empty": (lambda data: b"", "0 bytes"),
    "label": (lambda data: b"\x0a" + data[1:], "label 10, expected 0 to 9"),
    "web page": (lambda data: b"<!DOCTYPE html>", "HTML page"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, damage: str, packed: bool) -> None:
    spoil, says = DAMAGES[damage]
    held, _ = files()
    held["data_batch_2.bin"] = spoil(held["data_batch_2.bin"])
    (pack if packed else write)(tmp_path / ("cifar-10-binary.tar.gz" if packed else "cifar10"), held)
    with pytest.raises(UserError, match="data_batch_2") as caught:
        sources.cifar10(Request(data_dir=tmp_path, offline=True))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    held, _ = files()
    del held["data_batch_4.bin"]
    write(tmp_path / "cifar10", held)
    with pytest.raises(UserError, match=r"lacks data_batch_4\.bin of the six"):
        sources.cifar10(Request(data_dir=tmp_path, offline=True))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"<html>", lambda data: b""])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, files()[0])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz .*damaged"):
        sources.cifar10(Request(data_dir=tmp_path, offline=True))


def test_an_archive_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    held, _ = files()
    held["data_batch_1.bin"] = bytes(40_000_000)
    pack(tmp_path / "cifar-10-binary.tar.gz", held)
    with pytest.raises(UserError, match="data_batch_1"):
        sources.cifar10(Request(data_dir=tmp_path, offline=True))


def test_the_stand_in_says_so_and_is_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for cache in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        train, test = cifar.drawn(300, 100)
        digests.append((train["inputs"].tobytes(), train["targets"].tobytes(), test["inputs"].tobytes()))
        assert train["inputs"].shape == (300, 32, 32, 3)
        assert train["inputs"].dtype == np.uint8
        assert set(np.bincount(train["targets"], minlength=10)) == {30}
    assert digests[0] == digests[1]
    monkeypatch.setattr(cifar, "drawn", lambda: (train, test))
    splits = sources.cifar10(Request(source="builtin"))
    assert splits.name == "cifar10-standin"
    assert "a stand-in, not the real cifar10" in splits.where
