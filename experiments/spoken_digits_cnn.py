"""Spoken digits of six speakers: log-mel spectra computed inside the step, a small convolutional net.

Source: Jackson 2018 (Free Spoken Digit Dataset), the publisher's split: takes 0 to 4 test. Speaker by speaker:
    --experiment=study_speakers, or --set data.load.speaker=theo. A support-vector machine on mel-frequency cepstra is printed
    beside it.
Command: python -m fdl.main --experiment=spoken_digits_cnn
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, audio_ops, sources
from fdl.experiment import Experiment
from fdl.models import SpectrumCNN
from fdl.optim import Optimizer
from fdl.tasks import SpeechClassification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.spoken_digits,
            augment=(audio_ops.Speed(), audio_ops.VocalTract(), audio_ops.SpecAugment()),
            prepare=(audio_ops.LogMel(),),
        ),
        model=SpectrumCNN(),
        task=SpeechClassification(label_smoothing=0.1),
        optimizer=Optimizer(rule="adam", learning_rate=3e-3, schedule="onecycle", weight_decay=1e-2),
        steps="40epochs",
        batch_size=64,
    )
