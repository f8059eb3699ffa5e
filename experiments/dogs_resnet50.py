"""`dogs_lite0` with ResNet-50: twelve breeds of dogs from the frozen features of torchvision's weights.

Source: as dogs_lite0; He et al. 2016 (https://arxiv.org/abs/1512.03385) in the form v1.5, weights IMAGENET1K_V1.
Command: python -m fdl.main --experiment=dogs_resnet50
    The weights are DATA_DIR/pretrained/resnet50.safetensors by torchvision's or timm's names, or timm/resnet50.tv_in1k of
    the hub (pip install 'fdl[hub]'); pictures as for dogs_lite0. Computing the features is ten times dogs_lite0's work.
Hardware: -
Result: not trained here: the weights were not at hand. The file's names and layout are held by a test against PyTorch.
"""

import dataclasses

from experiments.dogs_lite0 import experiment as lite0
from fdl.data import ops
from fdl.experiment import Experiment
from fdl.models import ResNet50
from fdl.optim import Optimizer


def experiment() -> Experiment:
    base = lite0()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, prepare=(ops.Standardize("imagenet"),)),
        model=ResNet50(),
        optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", weight_decay=1e-2, freeze=("stem*", "stage*")),
        init_from="pretrained/resnet50.safetensors | hf:timm/resnet50.tv_in1k",
    )
