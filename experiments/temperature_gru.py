"""Tomorrow's minimum temperature in Melbourne: a GRU over the days before, the season as sine and cosine.

Source: the course exercise on daily minimum temperatures (MSE 6, MAE 2 asked for; split at row 2,500). Autoregression over seven
    days with two yearly waves, printed beside it, has 5.04.
Command: python -m fdl.main --experiment=temperature_gru
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

from functools import partial

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import RecurrentForecast
from fdl.optim import Optimizer
from fdl.tasks import Forecast


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=partial(sources.daily_min_temperatures, window=10, validation=0.0), prepare=(ops.ScaleSeries(),)
        ),
        model=RecurrentForecast(cell="gru", width=16, highway=7, dropout=0.3),
        task=Forecast(lags=7),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, weight_decay=0.3, ema=0.999),
        steps="60epochs",
        batch_size=64,
    )
