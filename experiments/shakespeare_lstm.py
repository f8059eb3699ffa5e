"""A character language model on Tiny Shakespeare: what comes next, one letter at a time.

Source: Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"; nanoGPT's transformer reaches 1.4697
    nats a character on its own validation split (the last 10 %).
Command: python -m fdl.main --experiment=shakespeare_lstm
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: 1.521 nats a character on validation (1.515-1.533, seeds 0, 1, 2) in 6.5 min
"""

from functools import partial

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import Recurrent
from fdl.optim import Optimizer
from fdl.tasks import LanguageModel


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=partial(sources.tiny_shakespeare, length=128, eval_length=512),
            augment=(augment.RandomWindow(),),
            prepare=(ops.NextToken(),),
        ),
        model=Recurrent(cell="lstm", width=512, dropout=0.2),
        task=LanguageModel(temperature=0.8, prompt="ROMEO:"),
        optimizer=Optimizer(rule="adam", learning_rate=3e-3, schedule="cosine", warmup=0.05, clip_norm=1.0),
        steps="10epochs",
        batch_size=32,
        eval_batch_size=16,
        sample_every="5epochs",
    )
