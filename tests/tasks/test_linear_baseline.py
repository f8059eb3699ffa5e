"""The linear model on the pixels against scikit-learn's own, on scikit-learn's digits."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from fdl.data import Request, Splits, sources
from fdl.tasks import Classification
from fdl.tasks.linear_baseline import linear_accuracy


def test_it_is_about_what_scikit_learn_reaches_on_the_pixels() -> None:
    splits = sources.digits(Request(offline=True))
    flat = {name: rows["inputs"].reshape(len(rows["inputs"]), -1) / 255 for name, rows in
            (("train", splits.train), ("test", splits.test))}  # fmt: skip
    oracle = LogisticRegression(max_iter=1000).fit(flat["train"], splits.train["targets"])
    expected = oracle.score(flat["test"], splits.test["targets"])
    found = Classification().baselines(splits)
    assert abs(found["linear model on the pixels"]["accuracy"] - expected) < 0.025
    assert 0.08 < found["majority class"]["accuracy"] < 0.12


def test_large_pictures_are_averaged_and_what_is_no_picture_has_none() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 60)
    bright = rng.integers(0, 60, (60, 70, 100, 3)) + 120 * targets[:, None, None, None]
    rows = {"inputs": bright.astype(np.uint8), "targets": targets.astype(np.int32)}
    assert linear_accuracy(Splits("x", "", "", rows, rows)) == 1
    for inputs in (np.zeros((60, 4), np.float32), {"numeric": np.zeros((60, 2))}):
        other = {"inputs": inputs, "targets": targets}
        assert linear_accuracy(Splits("x", "", "", other, other)) is None
    one = {"inputs": bright.astype(np.uint8), "targets": np.zeros(60, np.int32)}
    assert linear_accuracy(Splits("x", "", "", one, one)) is None
