"""Films for 671 users by two towers: a vector of a user's history, one of each film, and their products.

Source: Covington, Adams and Sargin 2016; Steck 2019 (EASE)
Command: python -m fdl.main --experiment=movielens_two_tower
Hardware: 2 cores of an AMD EPYC, shared with other work; jax 0.10.2
Result: ndcg 0.2852 on test (seed 0) in 1.2 min; best simple model: EASE 0.3533
Note: EASE wins: a product of two small vectors cannot hold which of 9,066 films go together as its full matrix does.
"""

from fdl.data import Data, sources
from fdl.experiment import Experiment
from fdl.models import TwoTowers
from fdl.optim import Optimizer
from fdl.tasks import Recommendation


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.movielens_histories),
        model=TwoTowers(embedding=128, width=128, masked=0.6, dropout=0.2),
        task=Recommendation(),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, weight_decay=1e-2, ema=0.99),
        steps="100epochs",
        batch_size=100,
        eval_batch_size=700,
        eval_every="5epochs",
        save_every="20epochs",
    )
