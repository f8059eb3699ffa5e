"""x"""

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
