"""mnist_mlp by hand: network, gradient and optimizer in NumPy alone (fdl/scratch), in the loop of every other experiment.

Source: Brownlee's "Handwritten digit recognition using convolutional neural networks" (784-784-10, batch 200, 10 epochs:
    98.1 % test, with the test split as validation).
Command: python -m fdl.main --experiment=scratch_mlp
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2, numpy 2.4.6
Result: 99.02 % test (seed 0) in 1.4 min
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import HandMLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.mnist, validation=2000, augment=(augment.Shift(pixels=2),), prepare=(ops.Standardize("unit"),)
        ),
        model=HandMLP(widths=(512, 256), batch_norm=True, dropout=0.2),
        task=Classification(label_smoothing=0.05),
        optimizer=Optimizer(
            engine="numpy", rule="adamw", learning_rate=3e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2
        ),
        steps="15epochs",
        batch_size=256,
    )
