"""Logistic regression by hand: one neuron tells pullovers from coats (Fashion-MNIST), in NumPy alone (fdl/scratch).

Source: deeplearning.ai's "Neural Networks and Deep Learning", week 2 (64x64x3 pictures of cats against others to one
    sigmoid, 209 examples: 70 % test).
Command: python -m fdl.main --experiment=scratch_logistic
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2, numpy 2.4.6
Result: 85.65 % test (seed 0) in 12 s
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import HandMLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.fashion_pair, validation=1000, prepare=(ops.Standardize(),)),
        model=HandMLP(widths=(), outputs=1, initializer="zeros"),
        task=Classification(),
        optimizer=Optimizer(engine="numpy", rule="momentum", learning_rate=1e-2, schedule="cosine"),
        steps="20epochs",
        batch_size=64,
    )
