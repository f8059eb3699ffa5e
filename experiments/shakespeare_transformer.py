"""A character language model on Tiny Shakespeare by a small Transformer.

Source: nanoGPT's setting for CPUs (4 layers of 128, 4 heads, context 64, batches of 12, 2,000 steps) reaches 1.88 nats on its
    validation split, its setting for a GPU (10.7 million parameters) 1.4697.
Command: python -m fdl.main --experiment=shakespeare_transformer
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from functools import partial

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import CausalTransformer
from fdl.optim import Optimizer
from fdl.tasks import LanguageModel


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=partial(sources.tiny_shakespeare, length=128, eval_length=128, last_tenth=True),
            augment=(augment.RandomWindow(),),
            prepare=(ops.NextToken(),),
        ),
        model=CausalTransformer(context=128, width=128, layers=4, heads=4, hidden=512, dropout=0.1),
        task=LanguageModel(temperature=0.8, prompt="ROMEO:"),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, schedule="cosine", warmup=0.05, clip_norm=1.0, b2=0.99),
        steps="10epochs",
        batch_size=32,
        eval_batch_size=64,
    )
