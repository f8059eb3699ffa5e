"""x"""

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
