"""Films for 671 users: an autoencoder of what a user has rated, trained to find the half that is masked.

Source: Liang et al. 2018 (Mult-DAE); Steck 2019 (EASE)
Command: python -m fdl.main --experiment=movielens_autoencoder
Hardware: 2 cores of an AMD EPYC, shared with other work; jax 0.10.2
Result: ndcg 0.3163 on test (seed 0) in 1.1 min; best simple model: EASE 0.3533
Note: EASE, a linear autoencoder in closed form, wins: 671 users are few for a net.
"""

from fdl.data import Data, sources
from fdl.experiment import Experiment
from fdl.models import HistoryAutoencoder
from fdl.optim import Optimizer
from fdl.tasks import Recommendation


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.movielens_histories),
        model=HistoryAutoencoder(),
        task=Recommendation(),
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, l2=1e-5),
        steps="80epochs",
        batch_size=100,
        eval_batch_size=700,
        eval_every="5epochs",
        save_every="20epochs",
    )
