"""The adding problem at 200 steps by a GRU; see adding_lstm.

Source: Hochreiter and Schmidhuber 1997; Le et al. 2015; Tallec and Ollivier 2018 for the biases.
Command: python -m fdl.main --experiment=adding_gru
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.adding_lstm import experiment as lstm
from fdl.experiment import Experiment
from fdl.models import RecurrentNet


def experiment() -> Experiment:
    return dataclasses.replace(lstm(), model=RecurrentNet(cell="gru", width=64, longest=200))
