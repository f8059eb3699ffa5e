"""Image files as arrays of one size, and folders of them with a subfolder for each class."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from fdl.types import Arrays, UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000


def read(path: Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """One image, uint8 [H, W, channels]: turned upright, in grey (1 channel) or RGB (3), scaled to `size` = (H, W).

    The sides are scaled each on its own. Transparent parts become black; 16-bit greys keep their upper 8 bits.

    Raises:
        UserError: the file is no image, is cut short, or has more than MAX_PIXELS pixels.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise ValueError(f"{file.width} x {file.height} pixels, at most {MAX_PIXELS:,} are read")
                image = ImageOps.exif_transpose(file)
                if image.mode.startswith("I"):
                    wide = np.asarray(image).astype(np.int64)
                    image = Image.fromarray(np.clip(wide >> 8, 0, 255).astype(np.uint8))
                if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
                image = image.convert("L" if channels == 1 else "RGB")
                scaled = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
                return np.asarray(scaled, np.uint8).reshape(*size, channels)
    except Exception as error:
        # Decoders raise whatever their format's author chose (OSError, SyntaxError, struct.error, ...).
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as an image ({reason[:200]}): mend or remove the file") from error


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
