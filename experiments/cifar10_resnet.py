"""ResNet-20 on CIFAR-10 by its authors' recipe, as far as a CPU carries it in three quarters of an hour.

Source: He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2): 0.27 M parameters, batches of 128, momentum 0.9,
    weight decay 1e-4, a rate of 0.1 divided by 10 at a half and at three quarters of 64,000 steps (164 epochs), flips and
    shifts of 4 pixels: 91.25 % test. Here the same in a tenth of the steps; `--set steps=64000` is the whole of it.
Command: python -m fdl.main --experiment=cifar10_resnet
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import ResNet
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.cifar10,
            validation=5000,
            augment=(augment.Flip(), augment.Shift(pixels=4)),
            prepare=(ops.Standardize(),),
        ),
        model=ResNet(stage_sizes=(3, 3, 3), block="basic", width=16, stem="cifar"),
        task=Classification(),
        optimizer=Optimizer(rule="momentum", learning_rate=0.1, schedule="piecewise", milestones=(0.5, 0.75), l2=1e-4),
        steps="18epochs",
        batch_size=128,
    )
