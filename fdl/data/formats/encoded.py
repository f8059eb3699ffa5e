"""Pictures that are not decoded before a batch needs them: a column that holds where their files are.

There is one decoder (`fdl.data.formats.images`): the pixels do not depend on whether TensorFlow is installed or on which feed
carries the batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.data.columns import read_all
from fdl.data.formats import images
from fdl.data.formats.frames import DRAWS, Frame
from fdl.types import UserError, printable


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A column of pictures in place of an array uint8 [N, H, W, C].

    `len`, `shape`, `dtype` and rows by slice or by array of numbers (another such column) cost nothing; `np.asarray`
    decodes.

    Attributes:
        content_of: number of a picture in the whole store -> its file's bytes (JPEG, PNG, ...), from any thread; a ValueError
            says why they cannot be had.
        name: the same -> what to call it in an error, such as its path.
        content: a digest of the whole store.
        rows: int64 [N], which of the store's pictures these are.
        frame: the size of the decoded pictures, and what of each is seen.
        digests: int64, of the bytes of each picture in the store, equal for equal files; None where they are not known.
    """

    content_of: Callable[[int], bytes]
    name: Callable[[int], str]
    content: bytes
    rows: np.ndarray
    frame: Frame
    digests: np.ndarray | None = None

    ahead = True

    @property
    def draws_shape(self) -> tuple[int, ...] | None:
        return DRAWS if self.frame.crop else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), *self.frame.shape

    @property
    def ndim(self) -> int:
        return 4

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> Encoded:
        return dataclasses.replace(self, rows=self.rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        pixels = read_all(self)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def read(self, rows: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        """Read pictures uint8 [B, H, W, C]; draws [B, *DRAWS] choose a random crop of each."""
        return np.stack([self._image(int(row), None if draws is None else draws[i]) for i, row in enumerate(rows)])

    def row_digests(self) -> np.ndarray | None:
        """Return digests of the files' bytes, where they have been read before; None where they have not."""
        return None if self.digests is None else self.digests[self.rows]

    def stretches(self) -> None:
        return None

    def fingerprint(self) -> np.ndarray:
        """Return uint8 [32] that represents the pixels in a digest of the data set; equal for columns of the same files."""
        seen = f"{self.shape}{'' if self.frame.crop else ' whole'}"
        return np.frombuffer(hashlib.sha256(self.content + seen.encode() + self.rows.tobytes()).digest(), np.uint8)

    def _image(self, place: int, draws: np.ndarray | None) -> np.ndarray:
        """Decode picture `place` of the column, uint8 [H, W, C]."""
        row = int(self.rows[place])
        try:
            return self.frame.apply(images.decode(self.content_of(row)), draws)
        except ValueError as error:
            raise UserError(
                f"cannot read the image {printable(self.name(row))}: {error}; remove or replace it"
            ) from error
