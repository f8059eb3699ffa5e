"""Networks as pure Linen modules: frozen dataclasses whose fields are the configuration.

A model knows nothing of data, losses or devices. Each is called as `model.apply(variables, inputs, train=False)`, holds
its parameters in float32 whatever `dtype` it computes in, and returns float32 outputs. With `train=True`, a model that
has dropout wants `rngs={"dropout": key}`, and one that has BatchNorm wants `mutable=["batch_stats"]`.
"""

from fdl.models.by_hand import HandCNN, HandMLP
from fdl.models.cnn import CNN
from fdl.models.members import Ensemble, Members
from fdl.models.mlp import MLP
from fdl.models.ordinal import Coral
from fdl.models.recommenders import BiasedFactors, HistoryAutoencoder, TwoTowers
from fdl.models.recurrent import Recurrent
from fdl.models.resnet import ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from fdl.models.tabular import TabularMLP

__all__ = [
    "CNN", "MLP", "BiasedFactors", "Coral", "Ensemble", "HandCNN", "HandMLP", "HistoryAutoencoder", "Members", "Recurrent",
    "ResNet", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "TabularMLP", "TwoTowers",
]  # fmt: skip
