"""How much do more examples help? A hundred to all 58,000 of Fashion-MNIST, with the same number of steps.

Source: the learning curves of Andrew Ng's "Machine Learning Yearning", chapters 28 to 32.
Command: python -m fdl.main --experiment=study_data_size
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: test accuracy, 5 seeds: 69.7, 76.6, 80.0, 82.2, 85.3, 86.5, 87.0 % for 100 to 58,000 in 4.1 min
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
        model=MLP(widths=(64,)),
        task=Classification(),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
        steps=5000,
        batch_size=64,
        log_every=250,
        eval_every=250,
        save_every=2500,
    )


def study() -> Study:
    return Study(
        {f"{count} examples": (f"num_examples={count}",) for count in (100, 300, 1000, 3000, 10000, 30000, 58000)},
        metrics=("test/accuracy", "train/accuracy"),
        curves=("train/loss", "eval/loss", "eval/accuracy"),
        log="y",
    )
