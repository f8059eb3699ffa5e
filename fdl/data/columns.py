"""Images too many for memory: a column that holds where they are, and decodes those of a batch when they are needed.

There is one decoder, Pillow's, in threads (it lets go of Python's lock while it works): the pixels do not depend on whether
TensorFlow is installed or which feed carries the batch. Reduced by an antialiasing bilinear filter, as torchvision's
recipes have it, it is also the faster one: 1,010 training crops/s against 690-780 by tf.io.decode_and_crop_jpeg and
tf.image.resize(antialias=True) in tf.data (JPEGs of 500 x 375 to 224 x 224, 2 cores, AMD EPYC 9005, Pillow 13, TensorFlow
2.21).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.data.formats.images import FORMATS, MAX_PIXELS
from fdl.types import Batch, UserError, one_line, printable

AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10
DRAWS = (ATTEMPTS, 4)
"""The uniform numbers that decide one random crop."""
EVALUATED = 224 / 256
"""The share of the shorter side that the evaluation crop shows."""
AHEAD = 2
"""How many batches are being decoded while one is used."""

Box = tuple[float, float, float, float]
"""left, upper, right, lower, in pixels of the whole picture."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A column of pictures that stands where an array uint8 [N, side, side, 3] would.

    `len`, `shape`, `dtype` and rows by slice or by array of numbers (another such column) cost nothing; `np.asarray`
    decodes. Evaluation sees the middle square, 224/256 of the shorter side, scaled to `side`: the shorter side to 256,
    the middle 224, for a side of 224. Training sees random crops instead: see `cropped`.

    Attributes:
        read: number of a picture in the whole store -> its file's bytes (JPEG, PNG, ...), from any thread.
        name: the same -> what to call it in an error, such as its path.
        content: a digest of the whole store.
        rows: int64 [N], which of the store's pictures these are.
        side: height and width of the decoded pictures, in pixels.
        draws: None, or uniform numbers [N, *DRAWS] that choose the crops.
    """

    read: Callable[[int], bytes]
    name: Callable[[int], str]
    content: bytes
    rows: np.ndarray
    side: int
    draws: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), self.side, self.side, 3

    @property
    def ndim(self) -> int:
        return 4

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> Encoded:
        draws = None if self.draws is None else self.draws[rows]
        return dataclasses.replace(self, rows=self.rows[rows], draws=draws)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        images = next(decoded(iter([{"images": self}])))["images"]
        return images if dtype is None else images.astype(dtype, copy=False)

    def cropped(self, draws: np.ndarray) -> Encoded:
        """The same pictures, each to be seen through the random crop that its uniform numbers [N, *DRAWS] choose."""
        return dataclasses.replace(self, draws=draws)

    def fingerprint(self) -> np.ndarray:
        """uint8 [32]: stands for the pixels in a digest of the data set; two columns of the same files have the same."""
        whole = hashlib.sha256(self.content + repr(self.shape).encode() + self.rows.tobytes()).digest()
        return np.frombuffer(whole, np.uint8)

    def _image(self, place: int) -> np.ndarray:
        """Picture `place` of the column, uint8 [side, side, 3]."""
        from PIL import Image, ImageOps

        row = int(self.rows[place])
        try:
            with Image.open(io.BytesIO(self.read(row)), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are over the limit of {MAX_PIXELS:,}")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                rgb = image if image.mode == "RGB" else image.convert("RGB")
                box = middle(*rgb.size) if self.draws is None else random_box(*rgb.size, self.draws[place])
                return np.asarray(rgb.resize((self.side, self.side), Image.Resampling.BILINEAR, box))
        except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged files
            raise UserError(
                f"cannot read the image {printable(self.name(row))}: {one_line(error)}; remove it or mend it"
            ) from error

    def start(self, pool: Executor) -> Decoding:
        """Hand the pictures to the pool, each once, however often it is in the column (as padding is)."""
        distinct, places = np.arange(len(self)), np.arange(len(self))
        if self.draws is None:
            _, distinct, places = np.unique(self.rows, return_index=True, return_inverse=True)
        return Decoding([pool.submit(self._image, int(place)) for place in distinct], places, self.shape)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Pictures on their way: distinct[places] when they are there."""

    distinct: list[Future[np.ndarray]]
    places: np.ndarray
    shape: tuple[int, ...]

    def finish(self) -> np.ndarray:
        images = np.empty(self.shape, np.uint8)
        for place, number in enumerate(self.places):
            images[place] = self.distinct[number].result()
        return images


def middle(width: int, height: int) -> Box:
    """The evaluation crop: the middle square, EVALUATED of the shorter side."""
    side = EVALUATED * min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def random_box(width: int, height: int, draws: np.ndarray) -> Box:
    """A random crop after Szegedy et al. 2015 (https://arxiv.org/abs/1409.4842, section 6), as torchvision has it.

    Area uniform in AREA of the picture's, the logarithm of width / height uniform in that of RATIO, place uniform: of
    ATTEMPTS the first that fits, else the largest middle part within RATIO.
    """
    for area, shape, x, y in draws:
        pixels = width * height * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** shape
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, upper, left + w, upper + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def of_files(paths: Sequence[Path], side: int) -> Encoded:
    """The pictures at `paths` as a column."""
    names = [str(path) for path in paths]
    content = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).digest()
    return Encoded(lambda row: paths[row].read_bytes(), names.__getitem__, content, np.arange(len(paths)), side)


def overlap(arrays: Batch) -> int:
    """How many rows after a row may hold some of the same numbers: 0, or of windows over a series the most there are."""
    return max((getattr(leaf, "overlap", 0) for leaf in jax.tree.leaves(arrays)), default=0)


def lazy(arrays: Batch) -> dict[str, Encoded]:
    """The columns that are still to be decoded."""
    return {name: column for name, column in arrays.items() if isinstance(column, Encoded)}


def decoded(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches with their pictures decoded, by all cores and AHEAD batches ahead.

    Raises:
        UserError: a picture is damaged.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    waiting: deque[Batch] = deque()
    try:
        for batch in batches:
            waiting.append(batch | {name: column.start(pool) for name, column in lazy(batch).items()})
            if len(waiting) > AHEAD:
                yield _finish(waiting.popleft())
        while waiting:
            yield _finish(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)  # whoever asked has had enough, or an error is on its way


def _finish(batch: Batch) -> Batch:
    return jax.tree.map(lambda leaf: leaf.finish() if isinstance(leaf, Decoding) else leaf, batch)
