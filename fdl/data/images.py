"""Image files as arrays of one size: a user's own pictures for a prediction, and folders with a subfolder for each class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fdl.types import Arrays, UserError

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
    Transparent pixels become black behind bright content and white behind dark.

    Raises:
        UserError: not an image, damaged, cut short, or more than MAX_PIXELS.
    """
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise UserError(f"cannot make a picture of {channels} channels from {path}: the model is not given images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large sizes; the cap below decides
            with Image.open(path, formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise UserError(
                        f"{path} has {file.width} x {file.height} pixels, over the limit of {MAX_PIXELS:,}; shrink it"
                    )
                file.load()
                image = _eight_bits(ImageOps.exif_transpose(file)).convert("L" if channels == 1 else "RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the image {path}: {reason}; remove it or mend it") from error
    return _fit(image, *size).reshape(*size, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of any mode as L or RGB, without transparency."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64))
        high = values.max(initial=0)
        if image.mode.startswith("I;16") or high > 255:
            values = values / 257  # 65535 -> 255
        elif image.mode == "F" and high <= 1:
            values = values * 255
        return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        pixels = np.asarray(rgba, np.float64)
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


def list_classes(folder: Path) -> dict[str, list[Path]]:
    """{class: its image files, sorted}, a class for every subfolder with images in it, in the order of their names."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            files = [path for path in entry.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
            if files:
                found[entry.name] = sorted(files)
    return found


def load(found: dict[str, list[Path]], classes: tuple[str, ...], size: tuple[int, int], channels: int) -> Arrays:
    """{"inputs": uint8 [N, H, W, C], "targets": int32 [N]}, class by class in the order of `classes`."""
    files = [(path, classes.index(name)) for name, paths in found.items() for path in paths]
    inputs = np.empty((len(files), *size, channels), np.uint8)
    for row, (path, _) in enumerate(files):
        inputs[row] = read(path, size, channels)
    return {"inputs": inputs, "targets": np.asarray([label for _, label in files], np.int32)}
