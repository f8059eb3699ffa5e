"""A residual network on CIFAR-10, of a width that a CPU can train.

Source: He et al. 2016 (https://arxiv.org/abs/1512.03385): section 4.2 has nets of this size (ResNet-20, 0.27 M parameters,
    91.25 % test; 64,000 steps of 128, flips and shifts of 4 pixels); ResNet-18 as known from ImageNet, with a 3 x 3 stem and
    the full width of 64 (`--set model.width=64`, 11.2 M parameters), reaches about 95 % in many repositories' 200 epochs.
Command: python -m fdl.main --experiment=cifar10_resnet
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import ResNet18
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.cifar10,
            validation=2000,
            augment=(augment.Flip(), augment.Shift(pixels=4), augment.Cutout(size=8)),
            prepare=(ops.Standardize(),),
        ),
        model=ResNet18(stem="cifar", width=16),
        task=Classification(label_smoothing=0.05),
        optimizer=Optimizer(rule="nesterov", learning_rate=0.1, schedule="onecycle", warmup=0.2, l2=5e-4),
        steps="12epochs",
        batch_size=128,
    )
