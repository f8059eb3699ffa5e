"""The same transformer, 96 hours ahead, by an LSTM over four days and a linear part beside it.

Source: Hochreiter and Schmidhuber 1997; Lai et al. 2018 for the autoregressive part beside it (LSTNet).
Command: python -m fdl.main --experiment=ett_lstm
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
        data=Data(load=partial(sources.etth1, window=96, horizon=96), prepare=(ops.ScaleSeries(),)),
        model=RecurrentForecast(cell="lstm", width=64, relative=True, highway=96, dropout=0.3),
        task=Forecast(scaled=True, lags=24),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, schedule="cosine", ema=0.99, clip_norm=1.0),
        steps="8epochs",
        batch_size=64,
    )
