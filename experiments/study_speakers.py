"""Spoken digits of a speaker that the net has never heard: each of the six held out in turn.

Source: Jackson 2018 (Free Spoken Digit Dataset). One held-out speaker says little; a support-vector machine on mel-frequency
    cepstra is printed beside each and beside their mean.
Command: python -m fdl.main --experiment=study_speakers
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

from experiments.spoken_digits_cnn import experiment as experiment
from fdl.data.formats.speech import SPEAKERS
from fdl.experiment.study import Study


def study() -> Study:
    return Study({speaker: (f"data.load.speaker={speaker}",) for speaker in SPEAKERS}, seeds=1, repeats=True)
