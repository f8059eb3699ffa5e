"""Where a net begins decides where it ends: zeros, large normal numbers, Xavier's and He's, on two circles.

Source: deeplearning.ai, "Improving Deep Neural Networks", exercise "Initialization" (2-10-5-1 net, 300 points of two circles,
    learning rate 0.01, 15,000 steps on all of them; accuracy in training / test: zeros 0.50 / 0.50, normal numbers times
    ten 0.83 / 0.86, He 0.993 / 0.96).
Command: python -m fdl.main --experiment=study_initialisation
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: training / test accuracy, 5 seeds: zeros 50 / 50, large 73 / 70, Xavier 89 / 92, He 96.9 / 98.6 % in 0.7 min
"""

from fdl.data import Data, planar
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=planar.circles),
        model=MLP(widths=(10, 5), outputs=1),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=0.01),
        steps=15_000,
        batch_size=300,
        log_every=100,
        eval_every=5000,
        save_every=5000,
    )


def study() -> Study:
    return Study(
        {name: (f"model.initializer={name}",) for name in ("zeros", "large", "xavier", "he")},
        metrics=("train/accuracy", "test/accuracy", "train/loss"),
        log="y",
    )
