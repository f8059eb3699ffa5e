"""One and the same number of epochs in small steps or in large ones: batches of 8 to 2,048 at a fixed learning rate.

Source: the deeplearning.ai specialisation's second course, "Mini-batch gradient descent"; Keskar et al. 2017
    (https://arxiv.org/abs/1609.04836).
Command: python -m fdl.main --experiment=study_batch_size
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: test accuracy, 5 seeds: 84.5, 85.0, 83.9, 82.1, 78.2 % for 8, 32, 128, 512, 2,048 in 2.3 min
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
        model=MLP(widths=(32,)),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=0.05),
        num_examples=16_384,
        steps="10epochs",
        batch_size=128,
        log_every="20%",
        eval_every="1epochs",
    )


def study() -> Study:
    return Study(
        {f"{size} examples a step": (f"batch_size={size}",) for size in (8, 32, 128, 512, 2048)},
        metrics=("test/accuracy", "train/loss"),
        curves=("eval/accuracy", "eval/loss"),
        against="epoch",
    )
