"""Captions from English to German by a Transformer of four layers and four, over joint subwords of the training captions.

Source: as multi30k_attention.
Command: python -m fdl.main --experiment=multi30k_transformer
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.multi30k_attention import experiment as attention
from fdl.experiment import Experiment
from fdl.models import TranslationTransformer


def experiment() -> Experiment:
    model = TranslationTransformer(width=128, encoder_layers=4, decoder_layers=4, heads=4, hidden=256, dropout=0.3)
    return dataclasses.replace(attention(), model=model)
