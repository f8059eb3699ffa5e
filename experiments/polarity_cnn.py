"""Is a sentence of a film review positive? Convolutions over words beside a linear model over n-grams, ten folds.

Source: Pang and Lee 2005, sentence polarity; NBSVM 78.8 % over ten folds, CNN-rand 75.9 % (Kim 2014). One fold is tested in a
    run, `data.load.fold`; study_polarity_folds trains all ten.
Command: python -m fdl.main --experiment=study_polarity_folds
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
            load=sources.rt_polarity,
            validation=500,
            encode=(Vocabulary(length=56, ngrams=2, pieces=(4, 6)),),
            augment=(NaiveBayesRatios(),),
            prepare=(NaiveBayesRatios(),),
        ),
        model=TextClassifier(reader="cnn", embedding=64, width=64, word_dropout=0.3, dropout=0.5, ngram_scale=0.05),
        task=TextClassification(),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, weight_decay=0.1, schedule="cosine", ema=0.99),
        steps="5epochs",
        batch_size=64,
        eval_every="1epochs",
        save_every="1epochs",
    )
