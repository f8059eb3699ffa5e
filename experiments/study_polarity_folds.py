"""The ten folds of sentence polarity: what polarity_cnn reaches in the mean, beside NBSVM on the same folds.

Source: Pang and Lee 2005; ten-fold figures as in Wang and Manning 2012 (NBSVM 79.4 %, their folds) and Kim 2014.
Command: python -m fdl.main --experiment=study_polarity_folds
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from experiments.polarity_cnn import experiment as experiment
from fdl.experiment.study import Study


def study() -> Study:
    return Study({f"fold {fold}": (f"data.load.fold={fold}",) for fold in range(10)})
