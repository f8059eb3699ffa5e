"""Microcalcifications among 11,183 spots, one in 43: an ensemble whose bias starts at the classes' shares.

Source: Woods et al. 1993
Command: python -m fdl.main --experiment=mammography_mlp --folds=5
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: average precision 0.722 +- 0.07 (AUROC 0.942) over 5 folds, seed 0; best simple model: a random forest 0.734
    (0.948), ahead by less than the folds' spread; logistic regression 0.621
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment, StartAtClassShares
from fdl.models import MLP, Ensemble
from fdl.optim import Optimizer
from fdl.tasks import RareClass


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.mammography,
            validation="10%",
            cut="content",
            augment=(ops.ClassWeights(power=0.25),),
            prepare=(ops.Tabular(),),
        ),
        model=Ensemble(MLP(widths=(64, 64), dropout=0.1), members=8),
        task=RareClass(),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2),
        steps="40epochs",
        batch_size=256,
        eval_every="4epochs",
        save_every="10epochs",
        updates=(StartAtClassShares(bias="params/base/output/bias"),),
    )
