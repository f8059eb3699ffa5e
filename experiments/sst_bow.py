"""Is a sentence of a film review positive? A bag of words beside a linear model over n-grams.

Source: as sst_lstm; a deep averaging network without phrases reaches 83.2 % (Iyyer et al. 2015, DAN-rand).
Command: python -m fdl.main --experiment=sst_bow
Hardware: 1 core of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: 83.20 % test (seed 0; NBSVM 82.87 %, majority class 49.92 %) in 68 s
"""

import dataclasses

from experiments.sst_lstm import experiment as sst_lstm
from fdl.experiment import Experiment


def experiment() -> Experiment:
    lstm = sst_lstm()
    return dataclasses.replace(lstm, model=lstm.model.clone(reader="mean", embedding=128))
