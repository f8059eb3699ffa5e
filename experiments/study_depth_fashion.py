"""Depth and width on Fashion-MNIST: no hidden layer up to four, 32 units to 512, ten epochs each.

Source: the questions that follow TensorFlow's "Basic classification" tutorial and the deeplearning.ai specialisation's
    first course: 64, 512 or 1,024 units? One more layer?
Command: python -m fdl.main --experiment=study_depth_fashion
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: test accuracy, 3 seeds: none 84.1, 32 units 86.1, 128 88.0, 512 88.4; 2 x 128 88.2, 3 x 128 88.3, 4 x 128 88.1 % in 9 min
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.fashion_mnist, validation=2000, prepare=(ops.Standardize(),)),
        model=MLP(widths=(128,)),
        task=Classification(),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
        steps="10epochs",
        batch_size=256,
    )


def study() -> Study:
    return Study(
        {
            "no hidden layer": ("model.widths=()",),
            **{f"{units}": (f"model.widths={units}",) for units in (32, 128, 512)},
            **{f"{depth} x 128": (f"model.widths={','.join(['128'] * depth)}",) for depth in (2, 3, 4)},
        },
        seeds=3,
        metrics=("test/accuracy", "test/loss"),
        curves=("train/loss", "eval/accuracy"),
        against="epoch",
    )
