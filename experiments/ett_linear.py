"""Electricity loads and the oil temperature of a transformer, 96 hours ahead: one linear map, which few nets beat.

Source: Zeng et al. 2023 (NLinear: MSE 0.374, MAE 0.394 on ETTh1 at horizon 96). Errors are in training deviations, over all 2,785
    test windows; ridge regression on the same 336 values, fitted in a second, is printed beside it (0.3696).
Command: python -m fdl.main --experiment=ett_linear
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: MSE 0.3699, MAE 0.3918 test (seed 0) in 0.5 min on one core; ridge 0.3696 and 0.3912, the last value 1.294
"""

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
