"""A convolutional net on MNIST.

Source: Brownlee's "Handwritten digit recognition using convolutional neural networks" (two convolutions with pooling,
    batch 200, 10 epochs: 99.1-99.2 % test, with the test split as validation).
Command: python -m fdl.main --experiment=mnist_cnn
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: 99.54 % test (99.52-99.58, seeds 0, 1, 2) in 3.4 min
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import CNN
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.mnist, validation=2000, augment=(augment.Shift(pixels=2),), prepare=(ops.Standardize("unit"),)
        ),
        model=CNN(filters=(32, 64), kernel=5, dense=(128,), batch_norm=True, dropout=0.2),
        task=Classification(label_smoothing=0.05),
        optimizer=Optimizer(
            rule="adam", learning_rate=2e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2, ema=0.998
        ),
        steps="18epochs",
        batch_size=128,
    )
