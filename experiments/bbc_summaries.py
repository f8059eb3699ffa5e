"""x"""

from fdl.data import Data, sentence_ops, sources
from fdl.experiment import Experiment
from fdl.models import SentenceScorer
from fdl.optim import Optimizer
from fdl.tasks import Summarization


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.bbc_summaries, encode=(sentence_ops.Sentences(),)),
        model=SentenceScorer(),
        task=Summarization(),
        optimizer=Optimizer(rule="adam", learning_rate=2e-3, schedule="cosine", weight_decay=1e-2, clip_norm=1.0),
        steps="10epochs",
        batch_size=32,
        eval_every="2epochs",
        save_every="2epochs",
    )
