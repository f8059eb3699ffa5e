"""A run of a few seconds that says the same on every layout: no dropout, no TensorFlow, data of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from fdl.data import Data, Facts, Request, Splits, ops
from fdl.experiment import Experiment
from fdl.models import CNN
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.tasks.task import Panel, View

TEST_ROWS = 83  # a ragged end for every number of processes


class Brief(Classification):
    """A report without pictures, which take longer than the rest of this run."""

    def panels(self, view: View) -> Iterable[Panel]:
        return ()


def blobs(request: Request) -> Splits:
    """Three kinds of 8x8 images that a small net tells apart, with noise."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 260 + TEST_ROWS).astype(np.int32)
    images = rng.integers(0, 150, (len(targets), 8, 8, 1))
    for row, kind in enumerate(targets):
        images[row, kind * 2 : kind * 2 + 3, 2:6] += 60
    inputs = images.astype(np.uint8)
    cut = lambda part: {"inputs": inputs[part], "targets": targets[part]}  # noqa: E731
    digest = hashlib.sha256(inputs.tobytes()).hexdigest()
    train, test = cut(slice(0, 260)), cut(slice(260, None))
    return Splits("blobs", "builtin", "drawn", train, test, sha256=digest, facts=Facts(classes=("a", "b", "c")))


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=blobs, validation=50, prepare=(ops.Standardize(),), feed="numpy"),
        model=CNN(filters=(4,), dense=(32,), outputs=3),
        task=Brief(),
        optimizer=Optimizer(learning_rate=3e-3),
        steps=60, batch_size=16, eval_batch_size=24, log_every=10, eval_every=20, save_every=20,
    )  # fmt: skip
