"""A deep net by hand: layers of 20, 7, 5 and 1 units tell pullovers from coats, in NumPy alone (fdl/scratch).

Source: deeplearning.ai's "Neural Networks and Deep Learning", week 4 (12288-20-7-5-1 on pictures of cats against others,
    209 examples, 2,500 iterations of gradient descent at 0.0075: 80 % test, two layers 72 %).
Command: python -m fdl.main --experiment=scratch_deep
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2, numpy 2.4.6
Result: 88.75 % test (seed 0) in 15 s
"""

import dataclasses

from experiments.scratch_logistic import experiment as logistic
from fdl.experiment import Experiment
from fdl.models import HandMLP


def experiment() -> Experiment:
    return dataclasses.replace(logistic(), model=HandMLP(widths=(20, 7, 5), outputs=1))
