"""House prices of California: a table with a text column and missing values.

Source: Pace and Barry 1997, in Géron's form; a tuned MLP reaches RMSE 0.499 and CatBoost 0.429 (100,000 dollars) in the
    tabular-dl benchmark of Gorishniy et al. 2021, on its own split.
Command: python -m fdl.main --experiment=california_mlp
Hardware: 2 cores of an AMD EPYC, shared with other work; jax 0.10.2
Result: rmse 0.4435 on test (0.4415 to 0.4435, 3 seeds) in 1.1 min; best simple model: gradient boosting 0.451
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import TabularMLP
from fdl.optim import Optimizer
from fdl.tasks import Regression


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.california_housing,
            validation=1500,
            prepare=(ops.Tabular(scale="quantile", category="index"), ops.ScaleTargets()),
        ),
        model=TabularMLP(widths=(128, 128), embedding="periodic", resolution=48, frequency_scale=1.0, heads=8),
        task=Regression(),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema=0.99),
        steps="30epochs",
        batch_size=256,
        eval_every="3epochs",
        save_every="10epochs",
    )
