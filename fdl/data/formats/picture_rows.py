"""Picture files as rows: decoded at the start into one array, or a column that is decoded batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fdl.data.formats import images
from fdl.data.formats.bad_inputs import Bad
from fdl.data.formats.checked import check_all
from fdl.data.formats.encoded import Encoded
from fdl.data.formats.frames import Frame
from fdl.data.formats.listing import Picture
from fdl.types import Arrays, UserError, printable

IN_MEMORY_BYTES = 1 << 30
"""Up to here decoded pictures are held in memory unless the user says otherwise."""


def is_lazy(count: int, frame: Frame, wanted: bool | None = None) -> bool:
    """Return whether `count` pictures are decoded batch by batch: for random crops, and where they are many.

    Raises:
        UserError: they are wanted in memory and do not fit there, or random crops are wanted of them; or a frame is too large.
    """
    height, width = frame.size
    if height * width > images.MAX_PIXELS:
        raise UserError(
            f"data.load.size={height},{width} is over the limit of {images.MAX_PIXELS:,} pixels: choose less"
        )
    needed, memory = count * height * width * frame.channels, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted is False and frame.crop:
        raise UserError(
            "data.load.crop=true cuts from the files at every step: leave data.load.lazy out, or set it to true"
        )
    if wanted is False and needed > memory // 2:
        raise UserError(
            f"{count:,} images of {height} x {width} x {frame.channels} would take {needed / 2**30:,.1f} GiB, over half of "
            "this machine's memory: choose a smaller data.load.size, or leave data.load.lazy out"
        )
    return frame.crop or (needed > IN_MEMORY_BYTES if wanted is None else wanted)


def picture_rows(
    root: Path, pictures: Sequence[Picture], targets: np.ndarray, frame: Frame, lazy: bool
) -> tuple[Arrays, list[Bad]]:
    """Return ({"inputs": uint8 [N, H, W, C] or a column, "targets": int32 [N]} of the good pictures, the others)."""
    if lazy:
        folders = [picture.path.rpartition("/")[0] for picture in pictures]
        identities = [f"{picture.path}\0{picture.size}\0{picture.modified}" for picture in pictures]
        wrong, digests = check_all(
            lambda row: images.read_bytes(root / pictures[row].path), folders, identities, str(root)
        )
        good = _all_but(wrong, len(pictures))
        chosen = [picture for picture, is_good in zip(pictures, good, strict=True) if is_good]
        inputs: np.ndarray | Encoded = _column(root, chosen, frame, digests[good])
    else:
        held = np.empty((len(pictures), *frame.shape), np.uint8)

        def decode(number: int) -> None:
            held[number] = frame.apply(images.decode(root / pictures[number].path))

        wrong = images.try_each(decode, len(pictures))
        good = _all_but(wrong, len(pictures))
        inputs = held[good] if wrong else held
    bad = [Bad(printable(root / pictures[number].path, 2000), "", reason) for number, reason in wrong.items()]
    return {"inputs": inputs, "targets": targets[good].astype(np.int32)}, bad


def _all_but(numbers: dict[int, str], count: int) -> np.ndarray:
    chosen = np.ones(count, bool)
    chosen[list(numbers)] = False
    return chosen


def _column(root: Path, pictures: Sequence[Picture], frame: Frame, digests: np.ndarray) -> Encoded:
    paths = [picture.path for picture in pictures]
    content = hashlib.sha256()
    for picture in pictures:
        content.update(f"{picture.path}\0{picture.size}\0".encode(errors="surrogateescape"))
    return Encoded(
        lambda row: images.read_bytes(root / paths[row]), lambda row: str(root / paths[row]), content.digest(),
        np.arange(len(paths)), frame, digests=digests,
    )  # fmt: skip
