"""The adding problem at 200 steps: the sum of two marked numbers, the first of them a hundred steps back or more.

Source: Hochreiter and Schmidhuber 1997; Le et al. 2015. Always answering 1 has a mean square error of 0.167. Forget biases start
    by the chrono initialisation (Tallec and Ollivier 2018). Other lengths: --set data.load.length=400 --set model.longest=400.
Command: python -m fdl.main --experiment=adding_lstm
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet; MSE 0.021 test with --set steps=1epochs (seed 0) in 1.8 min on one core
"""

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
