"""x"""

from experiments.spoken_digits_cnn import experiment as experiment
from fdl.data.formats.speech import SPEAKERS
from fdl.experiment.study import Study


def study() -> Study:
    return Study({speaker: (f"data.load.speaker={speaker}",) for speaker in SPEAKERS}, seeds=1)
