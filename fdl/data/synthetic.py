"""Synthetic sequences on which recurrent nets are compared: drawn anew from a fixed seed, the same on every call."""

from __future__ import annotations

import numpy as np

from fdl.data.splits import Facts, Request, Splits
from fdl.types import Arrays, Count, UserError

SEED = 0


def adding(
    request: Request, *, length: Count = 200, train: Count = 50_000, validation: Count = 1000, test: Count = 2000
) -> Splits:
    """Draw the adding problem (Hochreiter and Schmidhuber 1997; as in Le et al. 2015, https://arxiv.org/abs/1504.00941).

    Rows: "inputs" float32 [N, length, 2], a number in [0, 1) and a mark for each time step; two steps are marked, one in each
    half, and "targets" float32 [N] is the sum of their numbers. Always answering 1 has a mean square error of 1/6.

    Args:
        length: time steps, at least 2.
        train, validation, test: rows of each part.
    """
    if length < 2:
        raise UserError("data.load.length: two steps are marked, so give at least 2")
    parts = [
        _adding(np.random.default_rng((SEED, part)), count, length)
        for part, count in enumerate((train, validation, test))
    ]
    facts = Facts(outputs=1, target="sum of the marked numbers", numeric=("number", "mark"))
    return Splits(
        "adding",
        "builtin",
        f"drawn by {__name__}, seed {SEED}, {length} steps",
        parts[0],
        parts[2],
        parts[1],
        facts=facts,
    )


def _adding(rng: np.random.Generator, count: int, length: int) -> Arrays:
    numbers = rng.random((count, length), np.float32)
    rows, half = np.arange(count), length // 2
    first, second = rng.integers(0, half, count), rng.integers(half, length, count)
    marks = np.zeros_like(numbers)
    marks[rows, first] = marks[rows, second] = 1
    inputs = np.stack([numbers, marks], -1)
    return {"inputs": inputs, "targets": numbers[rows, first] + numbers[rows, second]}
