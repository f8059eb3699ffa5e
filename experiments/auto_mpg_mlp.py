"""Miles per gallon of 398 cars: so few rows that an ensemble and decay matter more than size; measured over ten folds.

Source: Quinlan 1993 (UCI auto-mpg)
Command: python -m fdl.main --experiment=auto_mpg_mlp --folds=10
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: MAE 1.826 +- 0.28 (RMSE 2.53) over 10 folds, seed 0; best simple model: a support vector machine 1.827 (2.52), a draw;
    gradient boosting 1.979 (2.73), linear regression 2.579 (3.34)
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP, Ensemble
from fdl.optim import Optimizer
from fdl.tasks import Regression


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.auto_mpg, prepare=(ops.Tabular(), ops.ScaleTargets())),
        model=Ensemble(MLP(widths=(64, 64), activation="silu"), members=8),
        task=Regression(),
        optimizer=Optimizer(rule="adamw", learning_rate=3e-3, schedule="cosine", weight_decay=0.1),
        steps="200epochs",
        batch_size=64,
        eval_every="50epochs",
        save_every="100epochs",
    )
