"""x"""

from functools import partial

from fdl.data import Data, synthetic
from fdl.experiment import Experiment
from fdl.models import RecurrentNet
from fdl.optim import Optimizer
from fdl.tasks import Regression


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=partial(synthetic.adding, length=200)),
        model=RecurrentNet(cell="lstm", width=64, longest=200),
        task=Regression(),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="cosine", clip_norm=1.0),
        steps="2epochs",
        batch_size=64,
    )
