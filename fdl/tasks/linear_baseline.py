"""The strongest cheap rival of a net on pictures: a linear model on their pixels, or on a frozen backbone's features."""

from __future__ import annotations

import warnings

import numpy as np

from fdl.data import columns
from fdl.data.splits import Splits
from fdl.types import Arrays

NAME = "linear model on the pixels"
FEATURES = "frozen_features"
"""Of `Facts.extra`: the rows are features, of which part of the model (`fdl.train.frozen_features`)."""
_SIDE = 32
"""Larger pictures are averaged to at most this many rows and columns."""
_NUMBERS = 20_000_000
"""Rows x pixels that are looked at, so that it stays a matter of seconds."""
_READ = 2000
"""Rows that are looked at where each has to be decoded."""


def linear_accuracy(splits: Splits) -> float | None:
    """Fit logistic regression to the first training rows; return its accuracy on the test split.

    None: the rows are neither pictures nor features, vectors of numbers.

    Pixels are centred and scaled as a whole, with scikit-learn's L2 penalty of 1 / C = 0.01 x rows and 100 iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, test = splits.train, splits.evaluated
    inputs, targets = train.get("inputs"), np.asarray(train["targets"])
    axes = 2 if FEATURES in splits.facts.extra else 4
    if len(getattr(inputs, "shape", ())) != axes or not np.issubdtype(targets.dtype, np.integer):
        return None
    x, y = _vectors(train, len(targets))
    mean, scale = x.mean(0), x.std() + 1e-9
    if len(np.unique(y)) < 2:
        return None
    model = LogisticRegression(C=100 / len(x), max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - mean) / scale, y)
    held, truth = _vectors(test, len(test["targets"]))
    return float(model.score((held - mean) / scale, truth))


def name_of(splits: Splits) -> str:
    """Name the linear model by what it is given."""
    return "linear model on the frozen features" if FEATURES in splits.facts.extra else NAME


def _vectors(rows: Arrays, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pictures of a split as float32 [N, pixels], or its features, and their labels [N]."""
    inputs = rows["inputs"]
    if inputs.ndim == 2:
        count = min(count, max(1, _NUMBERS // inputs.shape[1]))
        return np.asarray(inputs[:count], np.float32), np.asarray(rows["targets"])[:count]
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
