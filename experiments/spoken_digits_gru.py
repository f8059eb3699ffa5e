"""x"""

import dataclasses

from experiments.spoken_digits_cnn import experiment as cnn
from fdl.experiment import Experiment
from fdl.models import RecurrentNet


def experiment() -> Experiment:
    model = RecurrentNet(cell="gru", width=96, layers=2, pool="mean_max", dropout=0.3)
    return dataclasses.replace(cnn(), model=model)
