"""The one decoder of picture files: of any format and mode to 8 bits, upright, without transparency; in threads."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fdl.data.columns import cores
from fdl.data.formats.frames import Frame
from fdl.data.formats.signatures import LENGTH, content_name
from fdl.types import UserError, one_line, printable

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif",
)  # fmt: skip
"""What a picture's name ends in. The content decides what it is: a JPEG called .png is read."""
MAX_PIXELS = 50_000_000
"""A small file can unfold into gigabytes: what declares more pixels than this is refused before it is decoded."""
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "HEIF")
_NEEDS = {"a picture in HEIC": ("HEIF", "pillow-heif"), "a picture in AVIF": ("AVIF", "'pillow>=11.3'")}
_PILLOW = re.compile(r"PIL\.")
_BLOCK = 32  # files that a thread takes at once


def read(path: Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """Read the picture at `path` as uint8 [H, W, channels], `size` = (H, W): upright and whole (`fdl.data.formats.frames.fit`).

    Raises:
        UserError: not an image, damaged, cut short, or more than MAX_PIXELS.
    """
    try:
        return Frame(size, channels).apply(decode(path))
    except ValueError as error:
        raise UserError(f"cannot read the image {printable(path)}: {error}; remove or replace it") from error


def decode(source: Path | bytes) -> Image.Image:
    """Decode a picture's file, or its bytes, as an image of mode L or RGB, upright.

    Transparent pixels become black if the content is bright and white if it is dark; 65535 of 16 bits becomes 255, and 1 of
    floats. Of an animation, and of a file of several pictures, it is the first.

    Raises:
        ValueError: not an image, damaged, cut short, or more than MAX_PIXELS; the text says why.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _silence_warnings()
    try:
        if isinstance(source, Path):
            _require_file(source)
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_known_formats()) as file:
            check_pixels(file.width, file.height)
            file.load()
            deep = file.format == "PPM"  # Pillow scales 16-bit PPM to 0..65535 and calls it 32-bit
            return _eight_bits(ImageOps.exif_transpose(file), deep)
    except UnidentifiedImageError as error:
        raise ValueError(_why_unknown(source)) from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(one_line(said)) from error


def check_pixels(width: int, height: int) -> None:
    """Refuse what declares more than MAX_PIXELS.

    Raises:
        ValueError: it does.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are over the limit of {MAX_PIXELS:,}")


def read_bytes(path: Path) -> bytes:
    """Read a file's bytes.

    Raises:
        ValueError: it is no regular file, or may not be read.
    """
    try:
        _require_file(path)
        return path.read_bytes()
    except OSError as error:
        raise ValueError(one_line(error.strerror or error)) from error


def try_each(work: Callable[[int], object], count: int) -> dict[int, str]:
    """Call work(0) ... work(count - 1) in threads; {number: text} of those that raised ValueError."""
    wrong: dict[int, str] = {}

    def block(first: int) -> None:
        for number in range(first, min(first + _BLOCK, count)):
            try:
                work(number)
            except ValueError as error:
                wrong[number] = str(error)

    with decoding_threads() as pool:
        for _ in pool.map(block, range(0, count, _BLOCK)):
            pass
    return dict(sorted(wrong.items()))


@contextlib.contextmanager
def decoding_threads() -> Iterator[Executor]:
    """Return a thread for each core (Pillow lets go of Python's lock); what still waits at the end is dropped."""
    pool = ThreadPoolExecutor(cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Return the formats that may be decoded here: AVIF and HEIF only where Pillow has them or a plugin is installed."""
    from PIL import Image

    with contextlib.suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found]  # an extra: pip install 'fdl[heif]'

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decoder_version() -> str:
    """Return a text that changes when other files can be read, or the same files are read differently."""
    import PIL

    return f"{PIL.__version__} {' '.join(_known_formats())}"


def _silence_warnings() -> None:
    """Silence warnings of odd metadata and large sizes; `warnings.catch_warnings` is not safe in threads."""
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _require_file(path: Path) -> None:
    if not path.is_file():  # a pipe would be waited for without end
        what = "a folder" if path.is_dir() else "a link that leads nowhere" if path.is_symlink() else "no regular file"
        raise ValueError(f"it is {what}")


def _why_unknown(source: Path | bytes) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            start = file.read(LENGTH)
    else:
        start = source[:LENGTH]
    known = content_name(start)
    if not known:
        return f"no image, or one damaged at its start ({start[:4].hex(' ')})"
    needs, package = _NEEDS.get(known, ("", ""))
    if needs in _known_formats():
        return f"it is {known}, damaged"
    return f"it is {known}, which is read after pip install {package}" if needs else f"it is {known}"


def _eight_bits(image: Image.Image, deep: bool) -> Image.Image:
    """Convert an image of any mode to L or RGB, without transparency; `deep`: 32-bit grey values run to 65535.

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
