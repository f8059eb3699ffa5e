"""News in brief: which sentences of an article make its summary, by a bidirectional GRU over the sentences.

Source: the BBC corpus of Greene and Cunningham 2006 with the extractive summaries of Kaggle's bbc-news-summary (two fifths of the
    sentences); SummaRuNNer (Nallapati et al. 2017) for the net. Lead-3, a lead of equal length and a TF-IDF ranker are printed
    beside it.
Command: python -m fdl.main --experiment=bbc_summaries
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: ROUGE-1 82.9, ROUGE-2 76.9, ROUGE-L 50.9 test (seed 0) in 1.9 min on one core; TF-IDF 78.6, 71.5 and 49.1, a lead of
    equal length 60.6, 47.2 and 40.1, Lead-3 36.6, 28.9 and 30.2
"""

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
