"""A run of a few seconds that says the same on every layout: no dropout, no TensorFlow, data of its own."""

from __future__ import annotations

from collections.abc import Iterable

from small import CLASSES, cut, picture_rows

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
    rows = picture_rows(260 + TEST_ROWS, noise=150, bright=60)
    return Splits("blobs", "builtin", "drawn", *cut(rows, 260), facts=Facts(classes=CLASSES))


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=blobs, validation=50, prepare=(ops.Standardize(),), feed="numpy"),
        model=CNN(filters=(4,), dense=(32,), outputs=3),
        task=Brief(),
        optimizer=Optimizer(learning_rate=3e-3),
        steps=60, batch_size=16, eval_batch_size=24, log_every=10, eval_every=20, save_every=20,
    )  # fmt: skip
