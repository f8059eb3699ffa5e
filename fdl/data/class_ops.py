"""Ops that use the classes of the training rows: weights for rare ones, and what single n-grams say about them.

Legend: N rows, B batch, G n-grams of a text, K classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.data.splits import Op, Statistics
from fdl.types import Arrays, Batch, Draw, NonNegative, Positive, UserError


@dataclasses.dataclass(frozen=True)
class ClassWeights(Op):
    """Add "class_weight", float32 of the targets' shape: each example's weight in a classification's training loss.

    For `data.augment`: evaluation counts every example alike, and scores but the loss are never weighted.

    Attributes:
        power: the weight of a class of n of N training examples, among K classes, is (N / (K n)) ** power: 1 makes all classes
            count alike (scikit-learn's "balanced"), 0 leaves them as they are.
    """

    power: NonNegative = 1.0

    def fit(self, train: Arrays) -> Statistics:
        counts = np.bincount(class_numbers(train, self).ravel())
        balanced = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return {"weights": (balanced**self.power).astype(np.float32)}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if "targets" not in batch:  # a user's own rows, to be predicted
            return batch
        return {**batch, "class_weight": jnp.take(jnp.asarray(statistics["weights"]), batch["targets"], mode="clip")}


@dataclasses.dataclass(frozen=True)
class NaiveBayesRatios(Op):
    """Add what each n-gram says about each class by itself to the inputs: "ratios" float32 [B, G, K].

    With f_gk = the training texts of class k that have the n-gram, and |f_k| their sum over all n-grams (Wang and Manning
    2012, "Baselines and Bigrams"; for two classes r_g1 is theirs):

        r_gk = log((a + f_gk) / (a V + |f_k|)) - log((a + sum_j!=k f_gj) / (a V + sum_j!=k |f_j|))

    Name it in `data.augment` as well as in `data.prepare`: there each training text is left out of its own counts, without
    which every n-gram of one text alone would give its class away.

    Attributes:
        smoothing: a, what is added to each count.
    """

    smoothing: Positive = 1.0

    def fit(self, train: Arrays) -> Statistics:
        return {"counts": count_ngrams(train["inputs"]["ngrams"], class_numbers(train, self))}

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        inputs, ngrams = batch["inputs"], batch["inputs"]["ngrams"]
        if "ratios" in inputs:
            return batch
        totals = np.asarray(statistics["counts"], np.float64).sum(0)
        counts = jnp.take(jnp.asarray(statistics["counts"]), ngrams, axis=0, mode="fill", fill_value=0)
        if draw is not None:
            own = batch["targets"][:, None, None] == jnp.arange(len(totals))[None, None]
            counts = jnp.maximum(counts - own, 0)  # number 0, no n-gram, has no count to leave out
        ratios = log_ratios(counts, totals, self.smoothing, int((statistics["counts"].sum(1) > 0).sum()))
        return {**batch, "inputs": {**inputs, "ratios": ratios * (ngrams > 0)[..., None]}}


def count_ngrams(ngrams: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Count the texts of each class that have an n-gram, float32 [1 + the largest number, K]; number 0 is no n-gram."""
    size, classes = int(ngrams.max()) + 1, int(targets.max()) + 1
    counts = [np.bincount(ngrams[targets == label].ravel(), minlength=size) for label in range(classes)]
    found = np.stack(counts, -1).astype(np.float32)
    found[0] = 0
    return found


def log_ratios(counts: Any, totals: np.ndarray, smoothing: float, seen: int) -> Any:
    """Compute r [..., K] of `NaiveBayesRatios` from f [..., K], |f_k| [K] and V."""
    others = counts.sum(-1, keepdims=True) - counts
    shift = np.log(smoothing * seen + (totals.sum() - totals)) - np.log(smoothing * seen + totals)
    log = np.log if isinstance(counts, np.ndarray) else jnp.log
    shift = shift.astype(np.float32).reshape((1,) * (counts.ndim - 1) + (-1,))
    return log(smoothing + counts) - log(smoothing + others) + shift


def class_numbers(train: Arrays, op: Op) -> np.ndarray:
    """Return the training rows' classes [N].

    Raises:
        UserError: their targets are no class numbers.
    """
    targets = train.get("targets")
    if not isinstance(targets, np.ndarray) or targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"the op {type(op).__name__} needs one class number for each row: leave it out")
    return targets
