"""The learning-rate range test: the rate rises from step to step until the loss explodes; the best rates lie before that.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (https://arxiv.org/abs/1506.01186), section 3.3.
Command: python -m fdl.main --experiment=study_learning_rate
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: lowest mean loss at a rate of 0.09 (descent), 0.013 (momentum), 0.016 (Nesterov), 0.001 (RMSProp, Adam) in 0.7 min
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
        optimizer=Optimizer(rule="sgd", learning_rate=3.0, schedule="range_test", min_ratio=1e-5),
        steps=1000,
        batch_size=64,
        log_every=10,
        eval_every=500,
        save_every=500,
    )


def study() -> Study:
    rules = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
    return Study(
        {rule: (f"optimizer.rule={rule}",) for rule in rules},
        metrics=("train/loss",),
        against="train/learning_rate",
        log="xy",
    )
