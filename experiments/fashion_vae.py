"""A variational autoencoder of garments, in nats.

Source: Kingma and Welling 2014 (https://arxiv.org/abs/1312.6114), on Fashion-MNIST. Binarisation: dynamic (a pixel is drawn
    with the probability of its brightness at every step); validation and test pictures are drawn once.
Command: python -m fdl.main --experiment=fashion_vae
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.mnist_vae import experiment as mnist_vae
from fdl.data import sources
from fdl.experiment import Experiment


def experiment() -> Experiment:
    digits = mnist_vae()
    data = dataclasses.replace(digits.data, load=sources.fashion_mnist)
    return dataclasses.replace(digits, data=data, steps="20epochs")
