"""x"""

from functools import partial

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import LinearForecast
from fdl.optim import Optimizer
from fdl.tasks import Forecast


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=partial(sources.etth1, window=336, horizon=96), prepare=(ops.ScaleSeries(),)),
        model=LinearForecast(),
        task=Forecast(scaled=True, lags=24),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, schedule="cosine", weight_decay=1e-2, ema=0.995),
        steps="10epochs",
        batch_size=64,
    )
