"""Networks as pure Linen modules: frozen dataclasses whose fields are the configuration.

A model knows nothing of data, losses or devices. Each is called as `model.apply(variables, inputs, train=False)`, holds
its parameters in float32 whatever `dtype` it computes in, and returns float32 outputs. With `train=True`, a model that
has dropout wants `rngs={"dropout": key}`, and one that has BatchNorm wants `mutable=["batch_stats"]`.
"""

from typing import TYPE_CHECKING

from fdl.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from fdl.models.autoencoder import Autoencoder, ClusteringAutoencoder, Decoder, Encoder
    from fdl.models.by_hand import HandCNN, HandMLP
    from fdl.models.cnn import CNN
    from fdl.models.detector import Detector
    from fdl.models.efficientnet import EfficientNetLite
    from fdl.models.forecasting import LinearForecast, RecurrentForecast, SegRNN
    from fdl.models.members import Ensemble, Members
    from fdl.models.mlp import MLP
    from fdl.models.ordinal import Coral
    from fdl.models.recommenders import BiasedFactors, HistoryAutoencoder, TwoTowers
    from fdl.models.recurrent import Recurrent
    from fdl.models.recurrent_layers import RecurrentLayers
    from fdl.models.resnet import ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
    from fdl.models.seq2seq import AttentionTranslator
    from fdl.models.sequence import RecurrentNet
    from fdl.models.speech import SpectrumCNN
    from fdl.models.summarizer import SentenceScorer
    from fdl.models.tabular import TabularMLP
    from fdl.models.text_classifier import TextClassifier
    from fdl.models.transformer import CausalTransformer, TranslationTransformer
    from fdl.models.unet import UNet
    from fdl.models.video import FrameLSTM, VideoCNN
    from fdl.models.whitened_cnn import WhitenedCNN

__all__ = [
    "CNN",
    "MLP",
    "AttentionTranslator",
    "Autoencoder",
    "BiasedFactors",
    "CausalTransformer",
    "ClusteringAutoencoder",
    "Coral",
    "Decoder",
    "Detector",
    "EfficientNetLite",
    "Encoder",
    "Ensemble",
    "FrameLSTM",
    "HandCNN",
    "HandMLP",
    "HistoryAutoencoder",
    "LinearForecast",
    "Members",
    "Recurrent",
    "RecurrentForecast",
    "RecurrentLayers",
    "RecurrentNet",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SegRNN",
    "SentenceScorer",
    "SpectrumCNN",
    "TabularMLP",
    "TextClassifier",
    "TranslationTransformer",
    "TwoTowers",
    "UNet",
    "VideoCNN",
    "WhitenedCNN",
]

__getattr__ = lazy_exports(__name__, __file__)
