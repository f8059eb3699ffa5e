"""`dogs_lite0`, fine-tuned: the last two stages are trained too, at a tenth of the head's rate.

What the first five stages give is computed once (14 x 14 x 112 numbers a picture) and kept, so there is no augmentation;
BatchNorm stays in inference mode.

Source: Keras's guide to transfer learning and fine-tuning (https://keras.io/guides/transfer_learning): the head first, then
    the top at a small rate with BatchNorm in inference mode.
Command: python -m fdl.main --experiment=dogs_lite0_tuned
    Data and weights as for dogs_lite0, whose remark on ImageNet holds here too. To go on from its head:
    --mode=export of that run, then --set init_from=RUN/weights.safetensors.
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.dogs_lite0 import experiment as frozen
from fdl.experiment import Experiment
from fdl.optim import Group, Optimizer


def experiment() -> Experiment:
    return dataclasses.replace(
        frozen(),
        optimizer=Optimizer(
            learning_rate=1e-3, schedule="cosine", warmup=0.1, weight_decay=1e-2,
            freeze=("stem", "stage[1-5]*", "*/norm"),
            groups=(Group("stage*", scale=0.1), Group("head", scale=0.1)),
        ),
        steps="10epochs",
        eval_every="1epochs",
        save_every="5epochs",
        patience=None,
    )  # fmt: skip
