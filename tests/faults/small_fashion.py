"""fashion_cnn, shrunk: BatchNorm, dropout, augmentation and one-cycle rate as in the real one."""

import dataclasses

from experiments.fashion_cnn import experiment as real
from fdl.data import Request, Splits
from fdl.data.formats import forms
from fdl.data.standins import standin
from fdl.tasks import Classification


def garments(request: Request) -> Splits:
    train, test = standin.fashion(900, 100)
    return forms.splits("garments", "builtin", "drawn", train, test, classes=tuple("0123456789"))


@dataclasses.dataclass(frozen=True)
class Brief(Classification):
    """The same without panels: the report has its own curves, and is written in the same way."""

    def panels(self, view):
        return []


def experiment():
    whole = real()
    return dataclasses.replace(
        whole, data=dataclasses.replace(whole.data, load=garments, validation=100, feed="numpy"),
        model=whole.model.clone(filters=(4, 4), dense=(16,)), task=Brief(label_smoothing=0.05), batch_size=32,
        eval_batch_size=50, steps=240, log_every=7, eval_every=40, save_every=15,
    )  # fmt: skip
