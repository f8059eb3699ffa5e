"""A residual network on Fashion-MNIST, trained for long.

Source: He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2), ResNet-20 with Cutout (DeVries and Taylor 2017); the data
    set's table has 94.9 % for ResNet-18 and 95.5 % is reported for ResNet-20 with Cutout.
Command: python -m fdl.main --experiment=fashion_resnet
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import ResNet
from fdl.optim import Optimizer
from fdl.tasks import MultiView


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.fashion_mnist,
            augment=(augment.Flip(), augment.Shift(pixels=2), augment.Cutout(size=8)),
            prepare=(ops.Standardize(),),
        ),
        model=ResNet(stage_sizes=(3, 3, 3), block="basic", width=16, stem="cifar"),
        task=MultiView(label_smoothing=0.1, shift=0),
        optimizer=Optimizer(rule="nesterov", learning_rate=0.2, schedule="onecycle", warmup=0.15, l2=5e-4),
        steps="18epochs",
        batch_size=128,
    )
