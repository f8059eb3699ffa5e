"""A classifier's answers over the test split: what panels and predictions need, never all probabilities at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from fdl.data.splits import Splits
from fdl.tasks.task import View
from fdl.types import Array, Arrays, count_examples, take

FIRST = 12
"""The number of examples whose probabilities are all kept."""
CHUNK_BYTES = 1 << 26
"""The most logits held at a time: [N, C] of 10,000 examples and classes are 400 MB."""


def softmax(logits: Array | np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] on the host, in float32; for a single logit [N, 1] those of both classes [N, 2]."""
    values = np.array(logits, np.float32)  # a copy, which is changed in place below
    if values.shape[-1] == 1:
        values = np.concatenate([np.zeros_like(values), values], -1)
    values -= values.max(-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return values


def class_names(splits: Splits, count: int) -> tuple[str, ...]:
    """Return the name of each of `count` classes: its number where the data set has no name for it."""
    known = tuple(splits.classes[:count])
    return known + tuple(str(i) for i in range(len(known), count))


@dataclasses.dataclass(frozen=True)
class Answers:
    """The model's answers over the test split.

    Attributes:
        test: its rows.
        classes: the name of each class, C in all.
        truth: the class of each example [N].
        predicted: the likeliest class [N].
        confidence: the probability of that [N].
        second: the probability of class 1 [N], which separates two classes.
        first: all probabilities of the first examples [at most FIRST, C].
    """

    test: Arrays
    classes: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    second: np.ndarray
    first: np.ndarray


def collect_answers(view: View) -> Answers:
    """Ask the model about every example of the test split, a part at a time."""
    test = view.splits.evaluated
    truth = np.asarray(test["targets"])
    predicted, confidence, second = [], [], []
    first: np.ndarray = np.empty(0)
    for logits in _logits(view, test, max(len(view.splits.classes), int(truth.max()) + 1)):
        probabilities = softmax(logits)
        predicted.append(probabilities.argmax(-1))
        confidence.append(probabilities.max(-1))
        second.append(probabilities[:, min(1, probabilities.shape[1] - 1)].copy())
        first = first if first.size else probabilities[:FIRST].copy()
    names = class_names(view.splits, first.shape[1])
    joined = [np.concatenate(parts) for parts in (predicted, confidence, second)]
    return Answers(test, names, truth, joined[0], joined[1], joined[2], first)


def _logits(view: View, rows: Arrays, classes: int) -> Iterator[np.ndarray]:
    count = count_examples(rows)
    size = max(512, CHUNK_BYTES // (4 * classes) // 512 * 512)
    for start in range(0, count, size):
        yield view.outputs(take(rows, slice(start, start + size)))
