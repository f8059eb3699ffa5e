"""Clips made of MNIST's digits: what is seen is the digit, how it moves is seen in no frame alone."""

from __future__ import annotations

import numpy as np

from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError, printable

_STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def moving_digits(
    request: Request,
    *,
    frames: Count = 8,
    side: Count = 32,
    motions: tuple[str, ...] = ("left", "right"),
    clips: Count = 12_000,
) -> Splits:
    """Make clips [T, side, side, 1] of MNIST's digits that move a pixel a frame: classes are digit and motion ("7 left").

    Every digit moves in each of the `motions`, from a random place such that it stays inside; no frame alone says which. Training
    clips are of training digits, test clips (a fifth as many) of test digits; all by a fixed seed.

    Args:
        frames: T.
        side: H and W.
        motions: some of left, right, up, down.
        clips: in training.

    Raises:
        UserError: the digits do not fit, or a motion is unknown; or as `fdl.data.sources.mnist`.
    """
    from fdl.data.sources import mnist  # which lists this source

    if not motions or len(set(motions)) < len(motions) or not set(motions) <= set(_STEPS):
        raise UserError(
            f"data.load.motions: expected some of {', '.join(_STEPS)}, each once, not {printable(motions, 80)}"
        )
    digits = mnist(request)
    if side < 20 + frames - 1:
        raise UserError(
            f"data.load.side={side}: a digit of 20 pixels that moves {frames - 1} needs {20 + frames - 1} or more"
        )
    assert digits.test is not None
    rng = np.random.default_rng(0)
    train, test = (
        _moved(rows, count, frames, side, motions, rng)
        for rows, count in ((digits.train, clips), (digits.test, max(1, clips // 5)))
    )
    classes = tuple(f"{digit} {motion}" for digit in digits.classes for motion in motions)
    facts = Facts(classes=classes, extra={"clip": {"frames": frames, "size": (side, side), "channels": 1}})
    standin = "-standin" if digits.standin else ""
    return Splits(
        f"moving_digits{standin}", "builtin", f"clips made of {digits.name} from {digits.where}", train, test, facts=facts,
        standin=digits.standin,
    )  # fmt: skip


def _moved(
    digits: Arrays, count: int, frames: int, side: int, motions: tuple[str, ...], rng: np.random.Generator
) -> Arrays:
    """Move `count` random digits; the middle 20 x 20 pixels of an MNIST picture hold all of most of them."""
    chosen, kinds = rng.integers(0, len(digits["inputs"]), count), rng.integers(0, len(motions), count)
    pictures = digits["inputs"][chosen, 4:24, 4:24]
    held = np.zeros((count, frames, side, side, 1), np.uint8)
    free, travel = side - 20, frames - 1
    for row, (picture, kind) in enumerate(zip(pictures, kinds, strict=True)):
        step = np.array(_STEPS[motions[kind]])
        low = np.where(step < 0, travel, 0)
        place = rng.integers(low, free - np.where(step > 0, travel, 0) + 1)
        for time in range(frames):
            top, left = place + time * step
            held[row, time, top : top + 20, left : left + 20] = picture
    targets = digits["targets"][chosen] * len(motions) + kinds
    return {"inputs": held, "targets": targets.astype(np.int32)}
