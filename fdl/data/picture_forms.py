"""How the publishers of MNIST-like data made their pictures, so that a user's own drawing or photograph is made alike.

A drawing of a digit on a sheet, merely shrunk, is a few grey specks in a corner: nothing that a model trained on MNIST has
seen. Each form here repeats what its data set's authors did: find the subject, crop to it, scale it, place it.

Legend: H rows, W columns; grey pictures are [H, W], 0 is black.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

Form = Literal["whole", "mnist", "digits", "fashion_mnist"]
"""Whose pictures are imitated; "whole": nobody's, the whole picture is shown."""
_FAINTEST = 0.1
"""Of the range from black to white: a picture without any stronger contrast is blank."""
_NEAR_GROUND = 0.05
"""The same: what is this near to the corner's value is trimmed (Fashion-MNIST's paper)."""


class Formed(NamedTuple):
    """A picture in a publisher's form.

    Attributes:
        pixels: uint8 [H, W], bright on black.
        inverted: the subject was darker than its ground.
    """

    pixels: np.ndarray
    inverted: bool


def make_form(form: Form, grey_HxW: np.ndarray, size: tuple[int, int]) -> Formed | None:
    """Put a grey picture uint8 of any size in a form, [*size]; None where it shows nothing, or the form is "whole"."""
    makers: dict[Form, Callable[[np.ndarray, tuple[int, int]], Formed | None]] = {
        "mnist": lambda grey, size: _place_ink(grey, size, size[0] * 20 // 28, by_mass=True),
        "digits": lambda grey, size: _place_ink(grey, size, size[0], by_mass=False),
        "fashion_mnist": _trim,
    }
    return None if form == "whole" else makers[form](grey_HxW, size)


def _place_ink(grey: np.ndarray, size: tuple[int, int], side: int, by_mass: bool) -> Formed | None:
    """Scale the box around the ink so that its longer side is `side`, and place it by its middle or its centre of mass.

    MNIST's digits are 20 pixels at most, and their centre of mass is the middle of 28 x 28 (LeCun et al. 1998,
    http://yann.lecun.com/exdb/mnist). Those of Alpaydin and Kaynak (1998) fill the frame.
    """
    ink, inverted = _ink(grey)
    if ink is None:
        return None
    top, bottom, left, right = _box(ink > 0)
    height, width = _scaled(bottom - top, right - left, side)
    small = _resized(ink, (left, top, right, bottom), height, width)
    small = small / small.max()
    middle = [(length - 1) / 2 for length in small.shape]
    if by_mass:
        middle = [float((np.arange(len(line)) * line).sum() / line.sum()) for line in (small.sum(1), small.sum(0))]
    return Formed(np.rint(255 * _placed(small, middle, size)).astype(np.uint8), inverted)


def _trim(grey: np.ndarray, size: tuple[int, int]) -> Formed | None:
    """Trim edges near the ground's value, scale the longer side to the frame, centre, negate (Xiao et al. 2017, section 2).

    https://arxiv.org/abs/1708.07747. A picture on black is only trimmed and scaled.
    """
    ground = _ground(grey)
    inverted = ground >= 128
    seen = np.abs(grey.astype(np.float32) - ground) > 255 * _NEAR_GROUND
    if not seen.any():
        return None
    top, bottom, left, right = _box(seen)
    values = (255.0 - grey if inverted else grey).astype(np.float32)
    # What the ground was becomes black, as it is in every picture of the set.
    values = np.where(seen, values, 0)
    small = _resized(values, (left, top, right, bottom), *_scaled(bottom - top, right - left, min(size)))
    middle = [(length - 1) / 2 for length in small.shape]
    return Formed(np.rint(np.clip(_placed(small, middle, size), 0, 255)).astype(np.uint8), inverted)


def _ink(grey: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """Return how much ink each pixel has, float32 [H, W] in [0, 1] and 0 on the ground, and whether ink is dark.

    The threshold between ground and ink is Otsu's (1979): a photographed sheet is neither white nor evenly lit.
    """
    difference = (grey.astype(np.float32) - _ground(grey)) / 255
    inverted = bool(np.square(difference[difference < 0]).sum() > np.square(difference[difference > 0]).sum())
    ink = np.maximum(-difference if inverted else difference, 0)
    if ink.max() < _FAINTEST:
        return None, inverted
    threshold = _otsu(ink)
    full = ink[ink > threshold].mean()
    return np.where(ink > threshold / 2, np.minimum(ink / full, 1), 0), inverted


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that parts values in [0, 1] into two groups with the largest variance between their means."""
    counts, edges = np.histogram(values, 128, (0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)[:-1]
    means = sums / np.maximum(below, 1) - ((counts * centres).sum() - sums) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * means**2)])


def _ground(grey: np.ndarray) -> float:
    """Return the median of the outermost pixels."""
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))


def _box(seen: np.ndarray) -> tuple[int, int, int, int]:
    """Return the smallest box around the true pixels: top, bottom, left, right, ends excluded."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _scaled(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width with the longer one `side`, neither below 1."""
    longer = max(height, width)
    return max(1, round(height * side / longer)), max(1, round(width * side / longer))


def _resized(values: np.ndarray, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """Scale a box (left, top, right, bottom) of float values to [height, width], averaging what is reduced."""
    from PIL import Image

    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box))


def _placed(small: np.ndarray, middle: list[float], size: tuple[int, int]) -> np.ndarray:
    """Place values in a black frame [*size] so that `middle` comes to its centre, as far as nothing is cut off."""
    frame = np.zeros(size, np.float32)
    starts = [
        min(max(round((whole - 1) / 2 - at), 0), whole - part)
        for whole, part, at in zip(size, small.shape, middle, strict=True)
    ]
    frame[starts[0] : starts[0] + small.shape[0], starts[1] : starts[1] + small.shape[1]] = small
    return frame
