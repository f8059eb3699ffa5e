"""Is a sentence of a film review positive? A bidirectional LSTM beside a linear model over n-grams.

Source: Socher et al. 2013, the Stanford Sentiment Treebank's whole sentences; NBSVM (Wang and Manning 2012) reaches 82.9 % on
    these 6,920; published figures above it also train on the treebank's phrases (CNN-rand 82.7 %, Kim 2014).
Command: python -m fdl.main --experiment=sst_lstm
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, sources
from fdl.data.class_ops import NaiveBayesRatios
from fdl.data.encoders import Vocabulary
from fdl.experiment import Experiment
from fdl.models import TextClassifier
from fdl.optim import Optimizer
from fdl.tasks import TextClassification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.sst,
            encode=(Vocabulary(length=56, level="space", ngrams=2, pieces=(4, 6)),),
            augment=(NaiveBayesRatios(),),
            prepare=(NaiveBayesRatios(),),
        ),
        model=TextClassifier(reader="lstm", embedding=64, width=64, word_dropout=0.3, dropout=0.5, ngram_scale=0.05),
        task=TextClassification(),
        optimizer=Optimizer(rule="adamw", learning_rate=3e-3, weight_decay=0.1, schedule="cosine", ema=0.99),
        steps="8epochs",
        batch_size=64,
        eval_every="1epochs",
        save_every="1epochs",
    )
