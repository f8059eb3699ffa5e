"""Spoken digits by two GRU layers over the same spectra as spoken_digits_cnn.

Source: Jackson 2018 (Free Spoken Digit Dataset), the publisher's split: takes 0 to 4 test.
Command: python -m fdl.main --experiment=spoken_digits_gru
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.spoken_digits_cnn import experiment as cnn
from fdl.experiment import Experiment
from fdl.models import RecurrentNet


def experiment() -> Experiment:
    model = RecurrentNet(cell="gru", width=96, layers=2, pool="mean_max", dropout=0.3)
    return dataclasses.replace(cnn(), model=model)
