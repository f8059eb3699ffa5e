"""What happens without "divide by 255": raw pixels, the unit interval, standardised, and batch normalisation behind each.

Source: the first question after TensorFlow's "Basic classification" tutorial ("What if you don't normalise?"); Ioffe and
    Szegedy 2015 (https://arxiv.org/abs/1502.03167).
Command: python -m fdl.main --experiment=study_normalisation
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: test accuracy, 5 seeds: raw 11.1, /255 84.4, standardised 85.8 %; with BatchNorm 85.0, 85.0, 85.6 % in 1 min
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
        optimizer=Optimizer(rule="sgd", learning_rate=0.05),
        num_examples=20_000,
        steps="10epochs",
        batch_size=64,
    )


def study() -> Study:
    scales = {"raw pixels": "none", "divided by 255": "unit", "standardised": "mean_std"}
    plain: dict[str, tuple[str, ...]] = {
        label: (f"data.prepare.standardize.scale={scale}",) for label, scale in scales.items()
    }
    normed = {f"{label}, BatchNorm": (*change, "model.batch_norm=True") for label, change in plain.items()}
    return Study(
        plain | normed,
        metrics=("test/accuracy", "train/loss"),
        curves=("train/loss", "eval/accuracy"),
        against="epoch",
    )
