"""Archives of pictures: unpacked once, whole, and only into the cache; nothing hostile or damaged leaves anything."""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small import picture

from fdl.data import Splits, sources
from fdl.data.digests import sha256_of
from fdl.data.formats import archives
from fdl.data.splits import Request
from fdl.types import UserError

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "fdl" / "archives"


def digest_of(splits: Splits) -> str:
    return sha256_of(splits.train, splits.test)


def pack(pets: Path, suffix: str, around: str = "") -> Path:
    path = pets.with_name(f"packed{suffix}")
    files = sorted(file for file in pets.rglob("*") if file.is_file())
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, around + str(file.relative_to(pets)))
    else:
        packing = {".tar": "", ".tgz": "gz", ".tbz2": "bz2", ".txz": "xz"}.get(suffix, suffix.rpartition(".")[2])
        with tarfile.open(path, f"w:{packing}") as archive:
            for file in files:
                archive.add(file, around + str(file.relative_to(pets)))
    return path


@pytest.mark.parametrize("suffix", archives.ARCHIVES)
@pytest.mark.parametrize("around", ["", "pets/", "a/b/"])
def test_an_archive_is_the_folder_that_it_holds(pets: Path, cache: Path, suffix: str, around: str) -> None:
    (pets / "dog" / "more.png").write_bytes(picture(7))
    (pets / "dog" / "notes.txt").write_text("not unpacked")
    expected = sources.folder(Request(), path=str(pets))
    path = pack(pets, suffix, around)
    splits = sources.folder(Request(data_dir=path.parent), path=path.name)
    assert (digest_of(splits), splits.classes, splits.name) == (digest_of(expected), expected.classes, "packed")
    assert path.name in splits.where
    assert not list(cache.rglob("*.txt"))
    before = {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"}
    assert digest_of(sources.folder(Request(data_dir=path.parent), path=path.name)) == digest_of(expected)
    assert {f: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file() and f.suffix != ".lock"} == before


def test_what_was_unpacked_and_then_damaged_is_unpacked_anew(pets: Path, cache: Path) -> None:
    path = pack(pets, ".zip")
    sound = digest_of(sources.folder(Request(), path=str(path)))
    next(cache.rglob("*.png")).write_bytes(b"")
    next(cache.rglob("*.png")).unlink()
    assert digest_of(sources.folder(Request(), path=str(path))) == sound


def _unpack_and_die(path: Path) -> None:
    count = iter(range(4))

    def write(*args: object) -> None:
        if next(count) == 3:
            os._exit(9)
        original(*args)

    original, archives._write = archives._write, write  # type: ignore[assignment]
    archives.unpack(path)


def test_killed_half_way_nothing_counts(pets: Path, cache: Path) -> None:
    path = pack(pets, ".tar.gz")
    expected = digest_of(sources.folder(Request(), path=str(pets)))
    process = multiprocessing.get_context("spawn").Process(target=_unpack_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert len(list(cache.rglob("*.png"))) == 3
    assert digest_of(sources.folder(Request(), path=str(path))) == expected
    assert len(list(cache.rglob("*.png"))) == 10


def zip_with(name: str, data: bytes = b"x", mode: int = 0) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)

    return make


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, leads_to: str = "", size: int = 0) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, leads_to, size
            archive.addfile(info, io.BytesIO(bytes(size)))

    return make


HOSTILE = {
    "up.zip": (zip_with("../evil.png"), "leads out"),
    "deep.zip": (zip_with("a/b/../../../evil.png"), "leads out"),
    "root.zip": (zip_with("/evil.png"), "leads out"),
    "drive.zip": (zip_with("C:\\evil.png"), "leads out"),
    "link.zip": (zip_with("cat/x.png", b"/etc/passwd", 0o120777), "link or a device"),
    "device.zip": (zip_with("cat/x.png", b"", 0o020777), "link or a device"),
    "bomb.zip": (zip_with("cat/x.png", bytes(64 << 20)), "200 times"),
    "up.tgz": (tar_with("../evil.png"), "leads out"),
    "root.tgz": (tar_with("/evil.png"), "leads out"),
    "link.tgz": (tar_with("cat/x.png", tarfile.SYMTYPE, "../../../canary"), "a link"),
    "hard.tgz": (tar_with("cat/x.png", tarfile.LNKTYPE, "/etc/passwd"), "a link"),
    "device.tgz": (tar_with("cat/x.png", tarfile.CHRTYPE), "a device"),
    "pipe.tgz": (tar_with("cat/x.png", tarfile.FIFOTYPE), "a device"),
    "bomb.tgz": (tar_with("cat/x.png", size=64 << 20), "200 times"),
    "long.tgz": (tar_with("cat/" + "x" * 300 + ".png"), "too long"),
    "page.zip": (lambda path: path.write_bytes(b"<html>"), "HTML page"),
    "seven.zip": (lambda path: path.write_bytes(b"7z\xbc\xaf\x27\x1c"), "a 7-Zip file"),
    "empty.tar": (lambda path: path.touch(), "but empty"),
    "x.rar": (lambda path: path.write_bytes(b"Rar!"), "neither a folder nor an archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, says = HOSTILE[name]
    monkeypatch.setattr(archives, "FREE_BYTES", 16 << 20)
    make(tmp_path / name)
    with pytest.raises(UserError, match=says) as caught:
        sources.folder(Request(), path=str(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {name, "cache"}
    assert not [path for path in cache.rglob("*") if path.suffix != ".lock"]


def test_too_many_files_are_refused(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 9)
    with pytest.raises(UserError, match="more than 9 files"):
        archives.unpack(pack(pets, ".zip"))


def test_flat_masks_are_no_bomb(tmp_path: Path) -> None:
    """A mask of one colour packs over 200 times; what is refused has to be large as well."""
    masks = {f"{name}/{i}.bmp": Image.new("L", (2000, 2000), 7) for name in ("cat", "dog") for i in range(2)}
    with zipfile.ZipFile(tmp_path / "masks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in masks.items():
            file = io.BytesIO()
            mask.save(file, "BMP")
            archive.writestr(name, file.getvalue())
    unfolded = sum(info.file_size for info in zipfile.ZipFile(tmp_path / "masks.zip").infolist())
    assert unfolded > archives.MAX_RATIO * (tmp_path / "masks.zip").stat().st_size
    splits = sources.folder(Request(), path=str(tmp_path / "masks.zip"), size=(4, 4))
    assert set(splits.train["inputs"].ravel()) == {7}


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_method_and_with_windows_names(pets: Path, packing: int) -> None:
    expected = sources.folder(Request(), path=str(pets))
    path = pets.with_name("windows[1].zip")
    with zipfile.ZipFile(path, "w", packing) as archive:
        for file in sorted(pets.rglob("*.png")):
            archive.writestr("my pets\\" + "\\".join(file.relative_to(pets).parts), file.read_bytes(), packing)
        archive.writestr("my pets\\empty\\", b"")
    splits = sources.folder(Request(), path=str(path))
    assert (digest_of(splits), splits.classes) == (digest_of(expected), expected.classes)


def test_names_in_utf_8_that_do_not_say_so(pets: Path) -> None:
    """As macOS writes them: without the flag that says UTF-8."""
    (pets / "cat").rename(pets / "gâteau[1]")
    path = pack(pets, ".zip")
    content = path.read_bytes()
    flagged = (0x800).to_bytes(2, "little")
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        places = [i for i in range(len(content)) if content[i : i + 4] == signature]
        for place in places:
            assert content[place + at : place + at + 2] in (flagged, b"\0\0")
            content = content[: place + at] + b"\0\0" + content[place + at + 2 :]
    path.write_bytes(content)
    assert zipfile.ZipFile(path).namelist()[-1].startswith("g├")  # what Python alone makes of it
    assert sources.folder(Request(), path=str(path)).classes == ("dog", "gâteau[1]")


@pytest.mark.parametrize(("method", "says"), [(9, "deflate64"), (98, "ppmd")])
def test_a_method_that_cannot_be_unpacked_is_named(tmp_path: Path, method: int, says: str) -> None:
    zip_with("cat/x.png")(tmp_path / "x.zip")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    for signature, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(signature) + at] = method
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=f"by the method {says}"):
        archives.unpack(tmp_path / "x.zip")


def test_a_table_of_labels_comes_along_and_the_rest_is_counted(pets: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    (flat / "train").mkdir(parents=True)
    rows = ["id,kind"]
    for file in sorted(pets.rglob("*.png")):
        name = "-".join(file.relative_to(pets).parts)
        (flat / "train" / name).write_bytes(file.read_bytes())
        rows.append(f"{name},{file.parent.name}")
    (flat / "labels.csv").write_text("\n".join(rows))
    (flat / "README.txt").touch()
    for suffix in (".zip", ".tar.xz"):
        splits = sources.folder(Request(), path=str(pack(flat, suffix, "kaggle/")), labels="labels.csv")
        assert splits.classes == ("cat", "dog")
        assert len(splits.train["targets"]) + len(splits.test["targets"]) == 10
        assert splits.notes == ["what is no picture is not unpacked: 1 .txt"]


def test_the_limits_of_lists_and_of_size(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(pets, ".tar.bz2")
    monkeypatch.setattr(archives, "FREE_BYTES", 100)
    archives.unpack(path)  # large for its limit, but not 200 times its size
    monkeypatch.setattr(archives, "MAX_RATIO", 0.01)
    with pytest.raises(UserError, match="times its size"):
        archives.unpack(pack(pets, ".tar.xz"))
