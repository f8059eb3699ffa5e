"""What stands between two layers: eight activations in a net with three hidden layers, on a part of Fashion-MNIST.

Source: the deeplearning.ai specialisation's first course, "Activation functions"; Glorot, Bordes and Bengio 2011 ("Deep
    Sparse Rectifier Neural Networks"). With "linear" the three layers are one.
Command: python -m fdl.main --experiment=study_activations
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: test accuracy, 5 seeds: sigmoid 74.2, linear 82.4, tanh 84.7, the others 84.9 to 85.0 % in 1 min
"""

from typing import get_args

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.tasks.panels.activation import activations
from fdl.types import Activation


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.fashion_mnist, validation=2000, prepare=(ops.Standardize(),)),
        model=MLP(widths=(48, 48, 48), initializer="xavier"),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=0.05),
        num_examples=10_000,
        steps="20epochs",
        batch_size=64,
    )


def study() -> Study:
    return Study(
        {name: (f"model.activation={name}",) for name in get_args(Activation)},
        metrics=("test/accuracy", "train/loss"),
        curves=("train/loss", "eval/accuracy"),
        against="epoch",
        panels=lambda: [activations()],
    )
