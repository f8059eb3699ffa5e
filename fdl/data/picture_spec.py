"""What the pictures of a data set are like: what a picture to predict must be made like. Kept with the run, in `Facts.extra`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fdl.data.formats.encoded import Encoded
from fdl.data.formats.frames import Frame, border
from fdl.data.picture_forms import Form, make_form

if TYPE_CHECKING:
    from PIL import Image

KEY = "pictures"
"""Of `Facts.extra`."""
_SAMPLE, _DECODED = 1000, 100  # rows that are looked at; of a column, where each has to be decoded


@dataclasses.dataclass(frozen=True)
class PictureSpec:
    """The form of a data set's pictures.

    Attributes:
        shape: of one, [H, W, C] or [H, W].
        dtype: "uint8", ...
        high: the value of white.
        dark: they are grey on a dark ground, as MNIST's digits are.
        crop: evaluation sees the middle of a picture (`fdl.data.formats.frames.middle`), not the whole.
        form: how the publisher found and placed what his pictures show (`fdl.data.picture_forms`).
    """

    shape: tuple[int, ...]
    dtype: str
    high: float
    dark: bool
    crop: bool = False
    form: Form = "whole"

    @property
    def frame(self) -> Frame:
        """How a picture file becomes an array of this size."""
        return Frame(self.shape[:2], self.shape[2] if len(self.shape) == 3 else 1, self.crop)  # type: ignore[arg-type]

    def convert(self, image: Image.Image) -> tuple[np.ndarray, bool]:
        """Make a picture (mode L or RGB) like those of the data set.

        Returns:
            The picture [*shape] in the data set's values, and whether it was inverted: a bright ground where theirs is dark.
        """
        pixels, inverted = self._formed(image) or self._whole(image)
        pixels = pixels.reshape(self.shape)
        return (pixels if self.dtype == "uint8" else (pixels * (self.high / 255)).astype(self.dtype)), inverted

    def _formed(self, image: Image.Image) -> tuple[np.ndarray, bool] | None:
        """Return the picture in the publisher's form; None where it has none, or the picture has it already."""
        grey = np.asarray(image if image.mode == "L" else image.convert("L"))
        own = grey.shape == self.shape[:2] and np.median(border(grey[..., None])) < 128
        return None if own or self.form == "whole" else make_form(self.form, grey, self.shape[:2])  # type: ignore[arg-type]

    def _whole(self, image: Image.Image) -> tuple[np.ndarray, bool]:
        pixels = self.frame.apply(image)
        inverted = self.dark and bool(np.median(border(pixels)) >= 128)
        return (255 - pixels if inverted else pixels), inverted

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PictureSpec:
        return cls(**{**value, "shape": tuple(value["shape"])})


def picture_spec(inputs: Any) -> PictureSpec | None:
    """Find the form of rows [N, H, W, C] or [N, H, W] of 1 or 3 channels from some of the first; None for any others."""
    shape = tuple(map(int, getattr(inputs, "shape", ())[1:]))
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)) or not len(inputs):
        return None
    is_encoded = isinstance(inputs, Encoded)
    is_grey = len(shape) == 2 or shape[2] == 1
    if is_encoded and not is_grey:
        return PictureSpec(shape, "uint8", 255.0, False, inputs.frame.crop)
    seen = np.asarray(inputs[: _DECODED if is_encoded else _SAMPLE])
    if seen.dtype.kind not in "uif":
        return None
    high = 255.0 if seen.dtype == np.uint8 else float(seen.max())
    dark = is_grey and bool(np.median(border(seen.reshape(-1, *shape[:2], 1))) < high / 4)
    return PictureSpec(shape, str(seen.dtype), high, dark, is_encoded and inputs.frame.crop)
