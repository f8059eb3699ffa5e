"""Miles per gallon of 398 cars: so few rows that an ensemble and decay matter more than size; measured over ten folds.

Source: Quinlan 1993 (UCI auto-mpg)
Command: python -m fdl.main --experiment=auto_mpg_mlp --folds=10
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: MAE 1.826 +- 0.28 (RMSE 2.53) over 10 folds, seed 0; best simple model: a support vector machine 1.827 (2.52), a draw;
    gradient boosting 1.979 (2.73), linear regression 2.579 (3.34)
"""

import dataclasses

from experiments.boston_mlp import experiment as boston_mlp
from fdl.data import sources
from fdl.experiment import Experiment


def experiment() -> Experiment:
    boston = boston_mlp()
    return dataclasses.replace(boston, data=dataclasses.replace(boston.data, load=sources.auto_mpg))
