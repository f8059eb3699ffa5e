"""Dates as people write them to ISO 8601, character by character, with attention.

Source: the date translation of deeplearning.ai's sequence course (10,000 generated pairs); additive attention of Bahdanau et
    al. 2015.
Command: python -m fdl.main --experiment=dates_attention
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet on the test split; 1,000 of 1,000 dates of the validation split after 3 epochs of a run of 12 (seed 0)
"""

from fdl.data import Data, sources
from fdl.data.pairs import Pairs
from fdl.experiment import Experiment
from fdl.models import AttentionTranslator
from fdl.optim import Optimizer
from fdl.tasks import Translation


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.dates, encode=(Pairs(level="character", source_length=36, target_length=11),)),
        model=AttentionTranslator(embedding=32, width=64, dropout=0.1),
        task=Translation(),
        optimizer=Optimizer(rule="adam", learning_rate=4e-3, schedule="cosine", warmup=0.05, clip_norm=1.0),
        steps="6epochs",
        batch_size=64,
        eval_batch_size=500,
        eval_every="1epochs",
        save_every="1epochs",
    )
