"""shakespeare_lstm with a simple recurrent net: the same data, width and recipe.

Source: as shakespeare_lstm.
Command: python -m fdl.main --experiment=shakespeare_rnn
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.shakespeare_lstm import experiment as shakespeare_lstm
from fdl.experiment import Experiment


def experiment() -> Experiment:
    lstm = shakespeare_lstm()
    return dataclasses.replace(lstm, model=lstm.model.clone(cell="rnn"))
