"""Image files as arrays of one size: a user's own pictures for a prediction, and folders with a subfolder for each class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fdl.data.formats.bad_inputs import Bad
from fdl.types import Arrays, UserError, one_line, printable

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 50_000_000
"""A small file can unfold into gigabytes: what declares more pixels than this is refused before it is decoded."""


def find_images(source: str) -> list[tuple[str, Path]]:
    """(name, path) of the image files that `source` (a file, or a folder searched through) holds, in order of name.

    Raises:
        UserError: there is no such file or folder, or no image in it.
    """
    path = Path(source)
    if os.path.isfile(path):
        return [(path.name, path)]
    if not os.path.isdir(path):
        raise UserError(f"--input: no file or folder {source!r}; give an image, or a folder of images")
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(path)  # does not follow links to folders, so a loop of them ends
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if not found:
        raise UserError(f"--input: no image in {source!r}; looked for {', '.join(SUFFIXES)}")
    return sorted((str(file.relative_to(path)), file) for file in found)


def read(path: Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """The picture at `path` as uint8 [H, W, channels], `size` = (H, W): upright, whole, padded in its border's colour.

    Its shape is kept: it is scaled to fit, by a bilinear filter as wide as the reduction (a large picture is averaged,
    not sampled), and the rest is filled with the median colour of its border. One of the right size is not resampled.
    Transparent pixels become black behind bright content and white behind dark; 65535 of 16 bits becomes 255. Of an
    animation it is the first frame.

    Raises:
        UserError: not an image, damaged, cut short, or more than MAX_PIXELS.
    """
    if channels not in (1, 3):
        raise UserError(f"cannot make a picture of {channels} channels from {path}: the model is not given images")
    try:
        return _decode(path, size, channels)
    except ValueError as error:
        raise UserError(f"cannot read the image {printable(path)}: {error}; remove it or mend it") from error


def _decode(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """As `read`; a ValueError says why not."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():  # a pipe would be waited for without end
        what = "a folder" if path.is_dir() else "a link that leads nowhere" if path.is_symlink() else "no regular file"
        raise ValueError(f"it is {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large sizes; the cap below decides
            with Image.open(path, formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise ValueError(f"{file.width} x {file.height} pixels are over the limit of {MAX_PIXELS:,}")
                file.load()
                deep = file.format == "PPM"  # Pillow scales 16-bit PPM to 0..65535 and calls it 32-bit
                image = _eight_bits(ImageOps.exif_transpose(file), deep)
                image = image.convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            start = file.read(16)
        if start.lstrip()[:1] == b"<":
            raise ValueError("it is an HTML page") from error
        raise ValueError(
            f"no image, or one damaged at its start ({start[:4].hex(' ')})" if start else "it is empty"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        raise ValueError(one_line(error)) from error
    return _fit(image, *size).reshape(*size, channels)


def _eight_bits(image: Image.Image, deep: bool) -> Image.Image:
    """An image of any mode as L or RGB, without transparency; `deep`: 32-bit grey values run to 65535.

    Pillow's own `convert` would clip 16 bits at 255. Wide grey values are handled in place and in float32: at
    MAX_PIXELS each copy of them is 200 MB.
    """
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image, np.float32)
        np.nan_to_num(values, copy=False)
        high = values.max(initial=0)
        if deep or image.mode.startswith("I;16") or high > 255:
            values /= 257  # 65535 -> 255
        elif image.mode == "F" and high <= 1:
            values *= 255
        np.clip(np.rint(values, out=values), 0, 255, out=values)
        return Image.fromarray(values.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        small = rgba.reduce(max(1, max(rgba.size) // 512))  # enough to tell bright from dark
        pixels = np.asarray(small, np.float64)
        opacity = pixels[..., 3].sum()
        bright = opacity == 0 or (pixels[..., :3].mean(-1) * pixels[..., 3]).sum() / opacity >= 128
        ground = Image.new("RGBA", rgba.size, (0, 0, 0, 255) if bright else (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def border(images: np.ndarray) -> np.ndarray:
    """The outermost pixels of images [..., H, W, C], as [..., 2 * (H + W), C] (the corners twice)."""
    sides = (images[..., 0, :, :], images[..., -1, :, :], images[..., :, 0, :], images[..., :, -1, :])
    return np.concatenate(sides, axis=-2)


def _fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if image.size == (width, height):
        return np.asarray(image)
    pixels = np.asarray(image)
    ground = np.median(border(pixels.reshape(*pixels.shape[:2], -1)), axis=0).astype(np.uint8)
    scale = min(width / image.width, height / image.height)
    size = (
        min(width, max(1, round(image.width * scale))),
        min(height, max(1, round(image.height * scale))),
    )
    canvas = Image.new(image.mode, (width, height), tuple(int(value) for value in ground))
    canvas.paste(image.resize(size, Image.Resampling.BILINEAR), ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(canvas)


def list_classes(folder: Path) -> tuple[dict[str, list[Path]], list[Bad]]:
    """({class: what is named like an image, sorted}, links to nowhere); a class for every subfolder with such a name in it.

    Links are followed, out of the folder too: they are the user's own, as are the folders they lead to. Hidden names
    are passed over.
    """
    found, bad = {}, []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not entry.exists():
            bad.append(Bad(printable(entry), "", "it is a link that leads nowhere"))
        elif entry.is_dir() and not entry.name.startswith("."):
            names = sorted(path for path in entry.iterdir() if not path.name.startswith("."))
            files = [path for path in names if path.suffix.lower() in SUFFIXES]
            if files:
                found[entry.name] = files
    return found, bad


def load(
    found: dict[str, list[Path]], classes: tuple[str, ...], size: tuple[int, int], channels: int
) -> tuple[Arrays, list[Bad]]:
    """({"inputs": uint8 [N, H, W, C], "targets": int32 [N]}, the files that cannot be read), classes numbered in order.

    Raises:
        UserError: the pictures would not fit into this machine's memory.
    """
    files = [(path, classes.index(name)) for name, paths in found.items() for path in paths]
    needed, memory = len(files) * size[0] * size[1] * channels, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise UserError(
            f"{len(files):,} images of {size[0]} x {size[1]} x {channels} would take {needed / 2**30:,.1f} GiB, over half of "
            "this machine's memory: choose a smaller data.load.size"
        )
    inputs = np.empty((len(files), *size, channels), np.uint8)
    targets: list[int] = []
    bad = []
    for path, label in files:
        try:
            inputs[len(targets)] = _decode(path, size, channels)
            targets.append(label)
        except ValueError as error:
            bad.append(Bad(printable(path, 2000), "", str(error)))
    return {"inputs": inputs[: len(targets)], "targets": np.asarray(targets, np.int32)}, bad
