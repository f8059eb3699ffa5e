"""Handwritten digits read row by row, 28 steps of 28 pixels; pixel by pixel, 784 steps, as a setting.

Source: Le et al. 2015. By pixels: --set data.prepare.picturesequence.by=pixels --set model.longest=784 (LSTMs reach 87 to
    99 % in the literature); rows are the easier lesson, and the two figures are not comparable.
Command: python -m fdl.main --experiment=sequential_mnist_lstm
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import RecurrentNet
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.mnist, validation=2000, prepare=(ops.Standardize(scale="unit"), ops.PictureSequence(by="rows"))
        ),
        model=RecurrentNet(cell="lstm", width=128, dropout=0.2),
        task=Classification(),
        optimizer=Optimizer(rule="adam", learning_rate=3e-3, schedule="onecycle", clip_norm=1.0),
        steps="8epochs",
        batch_size=128,
    )
