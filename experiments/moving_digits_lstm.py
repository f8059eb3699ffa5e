"""The clips of moving_digits_video, frame by frame through a CNN and over time by an LSTM.

Source: Donahue et al. 2015 (https://arxiv.org/abs/1411.4389).
Command: python -m fdl.main --experiment=moving_digits_lstm
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

import dataclasses

from experiments.moving_digits_video import experiment as convolutions
from fdl.experiment import Experiment
from fdl.models import FrameLSTM


def experiment() -> Experiment:
    return dataclasses.replace(convolutions(), model=FrameLSTM())
