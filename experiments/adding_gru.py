"""x"""

import dataclasses

from experiments.adding_lstm import experiment as lstm
from fdl.experiment import Experiment
from fdl.models import RecurrentNet


def experiment() -> Experiment:
    return dataclasses.replace(lstm(), model=RecurrentNet(cell="gru", width=64, longest=200))
