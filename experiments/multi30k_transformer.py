"""Captions from English to German by a Transformer of four layers and four, over joint subwords of the training captions.

Source: Elliott et al. 2016, test_2016_flickr; small nets trained from scratch reach BLEU 39.0 (GRU, 128 and 256) and 41.0
    (Transformer, 4 + 4 layers of 128) on lowercased, tokenised text with beams of 5 to 12, on GPUs. What is printed here
    is sacrebleu on raw text, cased and in lower case: lower for the same translations.
Command: python -m fdl.main --experiment=multi30k_transformer
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, sources
from fdl.data.pairs import CutPairs, Pairs
from fdl.experiment import Experiment
from fdl.models import TranslationTransformer
from fdl.optim import Optimizer
from fdl.tasks import TranslationByBleu


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.multi30k,
            encode=(Pairs(level="subword", size=5000, source_length=64, target_length=64),),
            augment=(CutPairs(length=32),),
        ),
        model=TranslationTransformer(width=128, encoder_layers=4, decoder_layers=4, heads=4, hidden=256, dropout=0.3),
        task=TranslationByBleu(label_smoothing=0.1, beams=5),
        optimizer=Optimizer(rule="adamw", learning_rate=2e-3, schedule="cosine", warmup=0.05, clip_norm=1.0, ema=0.999),
        steps="20epochs",
        batch_size=64,
        eval_batch_size=128,
        eval_every="4epochs",
        save_every="2epochs",
    )
