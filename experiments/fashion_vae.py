"""A variational autoencoder of garments, in nats.

Source: Kingma and Welling 2014 (https://arxiv.org/abs/1312.6114), on Fashion-MNIST. Binarisation: dynamic (a pixel is drawn
    with the probability of its brightness at every step); validation and test pictures are drawn once.
Command: python -m fdl.main --experiment=fashion_vae
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, sources
from fdl.data.binarize import Binarize
from fdl.experiment import Experiment
from fdl.models import Autoencoder
from fdl.optim import Optimizer
from fdl.tasks import Variational


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.fashion_mnist, validation=2000, augment=(Binarize(),), prepare=(Binarize(),)),
        model=Autoencoder(filters=(), dense=(400, 400), latent=40, variational=True),
        task=Variational(),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="onecycle", warmup=0.1, ema=0.999),
        steps="20epochs",
        batch_size=256,
        eval_every="5epochs",
        save_every="5epochs",
    )
