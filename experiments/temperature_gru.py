"""x"""

from functools import partial

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import RecurrentForecast
from fdl.optim import Optimizer
from fdl.tasks import Forecast


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=partial(sources.daily_min_temperatures, window=28), prepare=(ops.ScaleSeries(),)),
        model=RecurrentForecast(cell="gru", width=32, highway=7),
        task=Forecast(lags=7),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, ema=0.99),
        steps="30epochs",
        batch_size=64,
    )
