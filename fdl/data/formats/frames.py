"""From a picture of any shape to an array of one: the whole picture on a ground, or a part of it that fills the frame."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

AREA, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10
DRAWS = (ATTEMPTS, 4)
"""The shape of the uniform numbers that decide one random crop."""
EVALUATED = 224 / 256
"""The share of the shorter side that the evaluation crop shows."""

Box = tuple[float, float, float, float]
"""left, upper, right, lower, in pixels of the whole picture."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """How pictures become arrays uint8 [H, W, C].

    Attributes:
        size: (H, W) in pixels.
        channels: 1 for grey, 3 for RGB.
        crop: False: the whole picture, see `fit`. True: the middle of it in evaluation (`middle`), in training a part chosen
            at random (`random_box`), each scaled to fill the frame.
    """

    size: tuple[int, int]
    channels: int = 3
    crop: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.size, self.channels)

    def apply(self, image: Image.Image, uniforms: np.ndarray | None = None) -> np.ndarray:
        """Put the picture (mode L or RGB) in the frame; `uniforms` [*DRAWS] choose a random crop."""
        from PIL import Image

        mode = "L" if self.channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        if not self.crop:
            return fit(image, *self.size).reshape(self.shape)
        height, width = self.size
        box = middle(*image.size, width / height) if uniforms is None else random_box(*image.size, uniforms)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box)).reshape(self.shape)


def fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale the whole picture to fit with its shape kept; the rest has the median colour of its border.

    The bilinear filter is as wide as the reduction: a large picture is averaged, not sampled. One of the right size is
    not resampled.
    """
    from PIL import Image

    if image.size == (width, height):
        return np.asarray(image)
    pixels = np.asarray(image)
    ground = np.median(border(pixels.reshape(*pixels.shape[:2], -1)), axis=0).astype(np.uint8)
    left, top, *scaled = placed(image.size, (height, width))
    canvas = Image.new(image.mode, (width, height), tuple(int(value) for value in ground))
    canvas.paste(image.resize((scaled[0], scaled[1]), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(canvas)


def placed(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) in a frame of (H, W) of a picture of (width, height), as `fit` scales and places it."""
    scale = min(size[1] / shape[0], size[0] / shape[1])
    width, height = (min(most, max(1, round(side * scale))) for side, most in zip(shape, size[::-1], strict=True))
    return (size[1] - width) // 2, (size[0] - height) // 2, width, height


def border(images: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of images [..., H, W, C], as [..., 2 * (H + W), C] (the corners twice)."""
    sides = (images[..., 0, :, :], images[..., -1, :, :], images[..., :, 0, :], images[..., :, -1, :])
    return np.concatenate(sides, axis=-2)


def middle(width: int, height: int, shape: float = 1.0) -> Box:
    """Return the evaluation crop: EVALUATED of the largest middle part whose width / height is `shape`.

    For a square of 224 pixels that is the usual recipe: the shorter side to 256, the middle 224.
    """
    w, h = EVALUATED * min(width, height * shape), EVALUATED * min(height, width / shape)
    left, upper = (width - w) / 2, (height - h) / 2
    return left, upper, left + w, upper + h


def random_box(width: int, height: int, uniforms: np.ndarray) -> Box:
    """Choose a random crop after Szegedy et al. 2015 (https://arxiv.org/abs/1409.4842, section 6), as torchvision has it.

    Area uniform in AREA of the picture's, the logarithm of width / height uniform in that of RATIO, place uniform: of
    ATTEMPTS the first that fits, else the largest middle part within RATIO.

    Args:
        uniforms: [*DRAWS] numbers in [0, 1): area, shape, x and y of each attempt.
    """
    for area, shape, x, y in uniforms:
        pixels = width * height * (AREA[0] + area * (AREA[1] - AREA[0]))
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** shape
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, upper, left + w, upper + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h
