"""A net that learns its training points by heart, and two remedies: weight penalty and dropout.

Source: deeplearning.ai, "Improving Deep Neural Networks", exercise "Regularization" (2-20-3-1 net, 211 training and 200 test
    points of a football field, learning rate 0.3, 30,000 steps; accuracy in training / test: none 0.948 / 0.915, L2
    with lambda 0.7 0.938 / 0.93, dropout keeping 0.86 0.929 / 0.95). Its points are not public; these are drawn in their
    manner. An l2 of lambda / (number of examples) is the original's lambda.
Command: python -m fdl.main --experiment=study_regularisation
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: training / test accuracy, 5 seeds: none 97.0 / 91.2, L2 95.1 / 92.8, dropout 95.5 / 92.9 % in 0.8 min
"""

from fdl.data import Data, planar
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=planar.fields),
        model=MLP(widths=(20, 3), outputs=1, initializer="lecun"),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=0.3),
        steps=30_000,
        batch_size=211,
        log_every=200,
        eval_every=10_000,
        save_every=10_000,
    )


def study() -> Study:
    return Study(
        {"none": (), "L2": (f"optimizer.l2={0.7 / 211}",), "dropout": ("model.dropout=0.14",)},
        metrics=("train/accuracy", "test/accuracy", "test/loss"),
    )
