"""House prices of California: a table with a text column and missing values.

Source: Pace and Barry 1997, in Géron's form; a tuned MLP reaches RMSE 0.499 and CatBoost 0.429 (100,000 dollars) in the
    tabular-dl benchmark of Gorishniy et al. 2021, on its own split.
Command: python -m fdl.main --experiment=california_mlp
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: RMSE 0.481 (100,000 dollars) test (0.479-0.482, seeds 0, 1, 2) in 23 s
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Regression


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.california_housing,
            validation=1500,
            prepare=(ops.Tabular(scale="quantile"), ops.ScaleTargets()),
        ),
        model=MLP(widths=(256, 256, 128), dropout=0.1),
        task=Regression(),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema=0.99),
        steps="100epochs",
        batch_size=256,
        eval_every="5epochs",
        save_every="10epochs",
    )
