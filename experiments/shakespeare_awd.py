"""Tiny Shakespeare by an LSTM with dropped weights and units that stay dropped, on nanoGPT's split.

Source: Merity et al. 2018, https://arxiv.org/abs/1708.02182 (AWD-LSTM). nanoGPT's split: the last 10 % of the text, where its
    Transformer reaches 1.4697 nats (10.7 million parameters, a GPU), its CPU setting 1.88; a minLSTM 1.555 (Feng et al. 2024).
    Each character is measured with 256 characters before it; in training the state begins at zero in each window.
Command: python -m fdl.main --experiment=shakespeare_awd
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
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
            load=partial(sources.tiny_shakespeare, length=160, eval_length=256, context=256, last_tenth=True),
            augment=(augment.RandomWindow(),),
            prepare=(ops.NextToken(),),
        ),
        model=Recurrent(cell="lstm", width=512, layers=2, dropout=0.3, variational=True, weight_dropout=0.4),
        task=LanguageModel(temperature=0.8, prompt="ROMEO:"),
        optimizer=Optimizer(rule="adamw", learning_rate=3e-3, schedule="cosine", warmup=0.05, clip_norm=1.0, ema=0.999),
        steps="12epochs",
        batch_size=32,
        eval_batch_size=32,
    )
