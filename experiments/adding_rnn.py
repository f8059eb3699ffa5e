"""The adding problem at 200 steps by a simple RNN, which does not learn it; see adding_lstm and study_vanishing_gradients.

Source: Hochreiter and Schmidhuber 1997; Le et al. 2015. Always answering 1 has a mean square error of 0.167.
Command: python -m fdl.main --experiment=adding_rnn
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.adding_lstm import experiment as lstm
from fdl.experiment import Experiment
from fdl.models import RecurrentNet


def experiment() -> Experiment:
    return dataclasses.replace(lstm(), model=RecurrentNet(cell="rnn", width=64))
