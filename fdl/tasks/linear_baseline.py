"""The strongest cheap rival of a net on pictures: a linear model on their pixels."""

from __future__ import annotations

import warnings

import numpy as np

from fdl.data import columns
from fdl.data.splits import Splits
from fdl.types import Arrays

NAME = "linear model on the pixels"
_SIDE = 32
"""Larger pictures are averaged to at most this many rows and columns."""
_NUMBERS = 20_000_000
"""Rows x pixels that are looked at, so that it stays a matter of seconds."""
_READ = 2000
"""Rows that are looked at where each has to be decoded."""


def linear_accuracy(splits: Splits) -> float | None:
    """Fit logistic regression to the first training rows; return its accuracy on the test split. None: no pictures.

    Pixels are centred and scaled as a whole, with scikit-learn's L2 penalty of 1 / C = 0.01 x rows and 100 iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, test = splits.train, splits.evaluated
    inputs, targets = train.get("inputs"), np.asarray(train["targets"])
    if len(getattr(inputs, "shape", ())) != 4 or not np.issubdtype(targets.dtype, np.integer):
        return None
    x, y = _pixels(train, len(targets))
    mean, scale = x.mean(0), x.std() + 1e-9
    if len(np.unique(y)) < 2:
        return None
    model = LogisticRegression(C=100 / len(x), max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - mean) / scale, y)
    held, truth = _pixels(test, len(test["targets"]))
    return float(model.score((held - mean) / scale, truth))


def _pixels(rows: Arrays, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pictures of a split as float32 [N, pixels], and their labels [N]."""
    inputs = rows["inputs"]
    _, height, width, channels = inputs.shape
    tall, wide = -(-height // _SIDE), -(-width // _SIDE)
    size = (height // tall) * (width // wide) * channels
    count = min(count, max(1, _NUMBERS // size), _READ if columns.is_column(inputs) else count)
    parts = []
    for start in range(0, count, 1000):
        part = np.asarray(inputs[start : min(start + 1000, count)], np.float32)
        part = part[:, : height // tall * tall, : width // wide * wide]
        part = part.reshape(len(part), height // tall, tall, width // wide, wide, channels).mean((2, 4))
        parts.append(part.reshape(len(part), -1))
    return np.concatenate(parts), np.asarray(rows["targets"])[:count]
