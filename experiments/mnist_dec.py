"""Deep embedded clustering of handwritten digits: their classes found without labels.

The labels only score: accuracy by the best matching of clusters to classes, over all 70,000 pictures.

Source: Xie, Girshick and Farhadi 2016 (https://arxiv.org/abs/1511.06335); with shifts, Guo et al. 2018
    (https://proceedings.mlr.press/v95/guo18b.html).
Command: python -m fdl.main --experiment=mnist_dec
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, augment, ops, sources
from fdl.data.encoders import RowNumbers
from fdl.experiment import Experiment
from fdl.experiment.clustering import KMeansCentres, TargetDistribution
from fdl.models import ClusteringAutoencoder
from fdl.optim import Optimizer
from fdl.tasks import Clustering


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.mnist_whole,
            encode=(RowNumbers(),),
            augment=(augment.Shift(pixels=2),),
            prepare=(ops.Standardize("unit"),),
        ),
        model=ClusteringAutoencoder(filters=(16, 32), dense=(), latent=10),
        task=Clustering(),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
        steps="20epochs",
        batch_size=256,
        save_every="5epochs",
        updates=(KMeansCentres(start="12epochs"), TargetDistribution(start="12epochs", every="1epochs")),
    )
