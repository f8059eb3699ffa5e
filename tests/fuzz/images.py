"""Pictures of every format and mode: whole, under a wrong name, damaged, with a header that lies, or no picture at all."""

from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fdl.data import sources
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.splits import Request
from fuzz.campaign import Case, cache_in
from fuzz.mutations import mutate

LEVEL = 96  # the grey of every whole picture, out of 255
NAMES = (
    "x.png", "-rf.jpg", "--help.png", "a b.png", "line\nbreak.png", "x.JPEG", "$(id).png", "=1+1.gif", "漢字.png", "x.tar.png",
    os.fsdecode(b"byte\xff\xfe.png"), "x" * 200 + ".png", "<script>.png", "%n.bmp", "x.tif", "x[1].png", "{a,b}*?.png",
    "cat\\x.png", "x.jfif", "x.HEIC", "e\u0301.png", "[!x].avif",
)  # fmt: skip


@functools.cache
def corpus() -> dict[str, tuple[bytes, int]]:
    """{kind: (a file, its grey)}, every picture of one colour."""
    made: dict[str, tuple[bytes, int]] = {}

    def add(kind: str, image: Image.Image, form: str, level: int = LEVEL, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, form, **options)
        made[kind] = file.getvalue(), level

    def plain(mode: str, *colour: int) -> Image.Image:
        return Image.new(mode, (13, 11), colour if len(colour) > 1 else colour[0])

    grey, rgb = plain("L", LEVEL), plain("RGB", LEVEL, LEVEL, LEVEL)
    deep = Image.fromarray(np.full((11, 13), LEVEL * 257, np.uint16))
    add("png", rgb, "PNG")
    add("png grey", grey, "PNG")
    add("png 16 bits", deep, "PNG")
    add("png dark 16 bits", Image.fromarray(np.full((11, 13), 200, np.uint16)), "PNG", 1)
    add("png alpha", plain("RGBA", LEVEL, LEVEL, LEVEL, 255), "PNG")
    add("png grey alpha", plain("LA", LEVEL, 255), "PNG")
    add("png palette", rgb.quantize(4), "PNG")
    add("png transparent palette", rgb.quantize(4), "PNG", transparency=3)
    add("png 1 bit", Image.new("1", (13, 11), 1), "PNG", 255)
    add("apng", grey, "PNG", save_all=True, append_images=[plain("L", 0)])
    add("jpeg", rgb, "JPEG")
    add("jpeg grey", grey, "JPEG")
    add("jpeg progressive", rgb, "JPEG", progressive=True)
    add("jpeg cmyk", plain("CMYK", 255 - LEVEL, 255 - LEVEL, 255 - LEVEL, 0), "JPEG", quality=100)
    exif = Image.Exif()
    exif[0x0112] = 6
    add("jpeg turned", rgb, "JPEG", exif=exif)
    add("gif", grey, "GIF")
    add("gif animated", grey, "GIF", save_all=True, append_images=[plain("L", 0), plain("L", 255)])
    add("webp", rgb, "WEBP", lossless=True)
    add("webp animated", rgb, "WEBP", lossless=True, save_all=True, append_images=[plain("RGB", 0, 0, 0)])
    add("tiff", rgb, "TIFF", compression="tiff_lzw")
    add("tiff 16 bits", deep, "TIFF")
    add("tiff cmyk", plain("CMYK", 255 - LEVEL, 255 - LEVEL, 255 - LEVEL, 0), "TIFF")
    add("tiff float", Image.fromarray(np.full((11, 13), LEVEL / 255, np.float32)), "TIFF")
    add("bmp", rgb, "BMP")
    add("ppm", rgb, "PPM")
    add("pgm 16 bits", deep, "PPM")
    add("pgm dark 16 bits", Image.fromarray(np.full((11, 13), 200, np.uint16)), "PPM", 1)
    return made


PLACES = ("cat", "cat/wild", "cat/[1]", "cat/back\\slash", "cat/" + os.fsdecode(b"\xe9t\xe9"))
NO_PICTURES = (
    b"", b"\0", b"<!DOCTYPE html><html></html>", pickle.dumps({"a": 1}), b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0",
    b"BM", b"P5 1", b"P5 99999999 99999999 255\n", b"P6 7000 7000 65535\n", b"II*\0\x08\0\0\0", b"%PDF-1.4",
    b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
)  # fmt: skip


def png(width: int, height: int, depth: int, kind: int, data: bytes) -> bytes:
    """A PNG whose header is what it is told to be, with right checksums."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def target(rng: np.random.Generator, folder: Path) -> Case:
    """Two classes with two good pictures each; the file in question is a third one of the first class."""
    good = corpus()["png"][0]
    for name in ("cat", "dog"):
        (folder / "set" / name).mkdir(parents=True)
        for number in range(2):
            (folder / "set" / name / f"good{number}.png").write_bytes(good)
    path = folder / "set" / PLACES[rng.integers(len(PLACES))] / NAMES[rng.integers(len(NAMES))]
    path.parent.mkdir(exist_ok=True)
    kinds = corpus()
    data, level = kinds[list(kinds)[rng.integers(len(kinds))]]
    kind, on_bad = rng.random(), ("stop", "skip")[rng.integers(2)]
    valid: bool | None = True
    if kind < 0.25:
        path.write_bytes(data)
    elif kind < 0.75:
        path.write_bytes(mutate(rng, data))
        valid = None
    elif kind < 0.85:
        width, height = (int(rng.choice([0, 1, 13, 7000, 60_000, 2**31 - 1])) for _ in range(2))
        path.write_bytes(png(width, height, int(rng.choice([1, 8, 16, 32])), int(rng.integers(0, 8)), bytes(200)))
        valid = None
    elif kind < 0.92:
        path.write_bytes(NO_PICTURES[rng.integers(len(NO_PICTURES))])
        valid = False
    else:
        valid = _no_file(rng, path, data)
    size = (int(rng.integers(1, 20)), int(rng.integers(1, 20)))
    request = Request(data_dir=folder, on_bad=on_bad)
    channels, lazy = int(rng.choice([1, 3])), bool(rng.random() < 0.3)

    def load() -> Any:
        with cache_in(folder / "cache"):
            return sources.folder(request, path="set", size=size, channels=channels, lazy=lazy)  # type: ignore[arg-type]

    expected = None if valid is None else valid or on_bad == "skip"
    return Case(load, ("cat/", "set"), expected, functools.partial(_check, valid, level, on_bad))


def _no_file(rng: np.random.Generator, path: Path, data: bytes) -> bool:
    """A folder, a pipe, a link or a closed file in the picture's place; whether it leads to a picture."""
    kind = rng.integers(7)
    if kind == 6:
        path.write_bytes(data)
        path.chmod(0)
        return os.access(path, os.R_OK)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("nowhere.png")
    elif kind == 4:
        path.symlink_to("/dev/zero")
    else:
        elsewhere = next(parent for parent in path.parents if parent.name == "set").parent / "elsewhere.png"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
        return True
    return False


def _check(valid: bool | None, level: int, on_bad: str, result: Any) -> None:
    if isinstance(result, Exception):
        assert isinstance(result, BadInputs)
        assert len(result.rows) == 1
        assert on_bad == "stop"
        return
    skipped = result.skipped
    assert len(skipped) == (valid is False) if valid is not None else len(skipped) <= 1
    count = len(result.train["targets"]) + len(result.test["targets"])
    assert count + len(skipped) == 5
    assert count == 5 or on_bad == "skip"
    if valid:
        inputs = np.concatenate([result.train["inputs"], result.test["inputs"]]).astype(int)
        off = np.minimum(np.abs(inputs - level), np.abs(inputs - LEVEL))
        assert off.max() <= 2, f"read as {np.unique(inputs)}, expected {level}"
