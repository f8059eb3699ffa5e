"""Is a film review positive? The first 400 words of IMDB's 50,000 reviews, read by an LSTM beside a linear model over n-grams.

Source: Maas et al. 2011; NBSVM over trigrams 91.8 % (Mesnil et al. 2015), CNN-rand 91.2 %; TensorFlow's tutorial, a
    bidirectional LSTM of 64, about 86 %.
Command: python -m fdl.main --experiment=imdb_lstm
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
            load=sources.imdb,
            validation=2500,
            encode=(Vocabulary(length=400, ngrams=2),),
            augment=(NaiveBayesRatios(),),
            prepare=(NaiveBayesRatios(),),
        ),
        model=TextClassifier(reader="lstm", embedding=64, width=64, word_dropout=0.3, dropout=0.5),
        task=TextClassification(),
        optimizer=Optimizer(
            rule="adamw", learning_rate=2e-3, weight_decay=0.1, schedule="cosine", clip_norm=1.0, ema=0.999
        ),
        steps="4epochs",
        batch_size=64,
        eval_batch_size=128,
    )
