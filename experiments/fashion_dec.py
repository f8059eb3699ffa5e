"""Deep embedded clustering of garments: their kinds found without labels.

The labels only score: accuracy by the best matching of clusters to classes, over all 70,000 pictures.

Source: as mnist_dec.
Command: python -m fdl.main --experiment=fashion_dec
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.mnist_dec import experiment as mnist_dec
from fdl.data import sources
from fdl.experiment import Experiment


def experiment() -> Experiment:
    digits = mnist_dec()
    return dataclasses.replace(digits, data=dataclasses.replace(digits.data, load=sources.fashion_mnist_whole))
