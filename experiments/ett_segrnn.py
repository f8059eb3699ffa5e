"""The same transformer, 96 hours ahead, by a GRU that reads a month in segments of two days.

Source: Lin et al. 2023 (SegRNN: MSE 0.351, MAE 0.392 from 720 hours with 512 units). Ridge regression on the same 720 values
    is printed beside it.
Command: python -m fdl.main --experiment=ett_segrnn
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

from functools import partial

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import SegRNN
from fdl.optim import Optimizer
from fdl.tasks import Forecast


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=partial(sources.etth1, window=720, horizon=96), prepare=(ops.ScaleSeries(),)),
        model=SegRNN(segment=48, width=128, dropout=0.5),
        task=Forecast(loss="mae", scaled=True, lags=24),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, schedule="cosine", ema=0.99),
        steps="15epochs",
        batch_size=64,
    )
