"""How many hidden units does a flower need? None, which is logistic regression, up to fifty.

Source: deeplearning.ai, "Neural Networks and Deep Learning", exercise "Planar data classification with one hidden layer"
    (400 points, tanh, learning rate 1.2, 10,000 steps on all of them; training accuracy: logistic regression 47 %, then
    67.5, 67.3, 90.8, 90.5, 91.3, 90 and 90.8 % for 1, 2, 3, 4, 5, 20 and 50 units).
Command: python -m fdl.main --experiment=study_depth
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: training accuracy, 5 seeds: 46, 69.0, 68.2, 94.8, 94.5, 95.4, 95.6, 95.9 % for 0, 1, 2, 3, 4, 5, 20, 50 units in 0.7 min
"""

from fdl.data import Data, planar
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=planar.flower),
        model=MLP(widths=(4,), outputs=1, activation="tanh", initializer="normal"),
        task=Classification(),
        optimizer=Optimizer(rule="sgd", learning_rate=1.2),
        steps=10_000,
        batch_size=400,
        log_every=100,
        eval_every=5000,
        save_every=5000,
    )


def study() -> Study:
    return Study(
        {
            "0 hidden units": ("model.widths=()",),
            **{f"{units} hidden units": (f"model.widths={units}",) for units in (1, 2, 3, 4, 5, 20, 50)},
        },
        metrics=("train/accuracy", "test/accuracy"),
    )
