"""Microcalcifications found without labels: an autoencoder of normal spots, and how badly it reconstructs a spot.

Training and the choice of the checkpoint use the normal rows alone; the columns' scaling sees all training rows, without labels.

Source: Woods et al. 1993; a variational autoencoder's AUROC is .887 in ADBench (Han et al. 2022)
Command: python -m fdl.main --experiment=mammography_autoencoder --folds=5
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import functools

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import AnomalyDetection


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=functools.partial(sources.mammography, distinct=True),
            validation="10%",
            cut="stratified",
            prepare=(ops.Tabular(),),
        ),
        model=MLP(widths=(32, 2, 32), outputs=6, activation="tanh", initializer="xavier"),
        task=AnomalyDetection(),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="cosine"),
        steps="30epochs",
        batch_size=256,
        eval_every="5epochs",
        save_every="10epochs",
    )
