"""House prices of 506 districts of Boston, measured over ten folds.

The column "b" is a function of the share of Black inhabitants: a benchmark of methods, no basis for decisions.

Source: Harrison and Rubinfeld 1978; deep ensembles reach RMSE 3.28 and MC dropout 2.97 over 20 random splits (Lakshminarayanan
    et al. 2017, Gal and Ghahramani 2016)
Command: python -m fdl.main --experiment=boston_mlp --folds=10
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: RMSE 2.89 +- 0.55 (MAE 2.04), mean over 10 folds, seed 0; best simple model: a support vector machine 3.06 (2.08);
    gradient boosting 3.20, linear regression 4.75
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP, Ensemble
from fdl.optim import Optimizer
from fdl.tasks import Regression


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.boston, prepare=(ops.Tabular(), ops.ScaleTargets())),
        model=Ensemble(MLP(widths=(64, 64), activation="silu"), members=8),
        task=Regression(),
        optimizer=Optimizer(rule="adamw", learning_rate=3e-3, schedule="cosine", weight_decay=0.1),
        steps="200epochs",
        batch_size=64,
        eval_every="50epochs",
        save_every="100epochs",
    )
