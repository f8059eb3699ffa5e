"""Twelve breeds of dogs from scratch: 1,437 photographs and no other picture seen.

Source: the photographs of dogs_lite0 (Stanford Dogs, Khosla et al. 2011). A ResNet-18 of half the width at 112 x 112 pixels,
    random crops, flips and mixup, weight decay, the parameters' moving average. No published figure has these twelve breeds.
Command: python -m fdl.main --experiment=dogs_scratch
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, augment, ops
from fdl.experiment import Experiment
from fdl.models import ResNet18
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load="folder:stanford-dogs-12,size=112,112,crop=true", validation="10%", cut="stratified",
            augment=(augment.Flip(), augment.Mixup(alpha=0.2)), prepare=(ops.Standardize("imagenet"),),
        ),
        model=ResNet18(width=32),
        task=Classification(label_smoothing=0.1),
        optimizer=Optimizer(
            rule="adamw", learning_rate=2e-3, schedule="onecycle", warmup=0.2, weight_decay=5e-2, ema=0.998
        ),
        steps="60epochs",
        batch_size=64,
        eval_batch_size=64,
        eval_every="5epochs",
        save_every="5epochs",
    )  # fmt: skip
