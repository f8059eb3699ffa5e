"""Seven ways down the same hill: gradient descent in three batch sizes, momentum, Nesterov's, RMSProp and Adam on two moons.

Source: deeplearning.ai, "Improving Deep Neural Networks", exercise "Optimization methods" (2-5-2-1 net, 300 moons, learning
    rate 7e-4, batches of 64, 10,000 epochs; training accuracy: gradient descent 0.797, momentum 0.797, Adam 0.94).
    Momentum is its average of gradients, v = 0.9 v + 0.1 g. A layer of two ReLU units is sometimes born dead: such a
    seed stays at one half under every rule, and pulls all means down alike.
Command: python -m fdl.main --experiment=study_optimizers
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: training accuracy, 5 seeds: batch 71.8, mini-batch and momentum 81.3, stochastic 89.2, RMSProp and Adam 89.5 % in 0.5 min
"""

from fdl.data import Data, planar
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=planar.moons),
        model=MLP(widths=(5, 2), outputs=1),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=7e-4),
        steps="10000epochs",
        batch_size=64,
        log_every="100epochs",
        eval_every="1000epochs",
        save_every="1000epochs",
    )


def study() -> Study:
    return Study(
        {
            "batch": ("batch_size=300",),
            "mini-batch": (),
            "stochastic": ("batch_size=1", "steps=1000epochs"),
            "momentum": ("optimizer.rule=momentum", "optimizer.dampened=True"),
            "Nesterov": ("optimizer.rule=nesterov", "optimizer.dampened=True"),
            "RMSProp": ("optimizer.rule=rmsprop",),
            "Adam": ("optimizer.rule=adam",),
        },
        metrics=("train/accuracy", "test/accuracy", "train/loss"),
        against="epoch",
    )
