"""Which digit moves which way: convolutions over space and time on short clips.

Source: (2+1)D convolutions of Tran et al. 2018 (https://arxiv.org/abs/1711.11248); the video tutorials of TensorFlow's site.
    The clips are made of MNIST's digits, each moving left or right: 20 classes, of which one frame can tell 10.
Command: python -m fdl.main --experiment=moving_digits_video
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import VideoCNN
from fdl.optim import Optimizer
from fdl.tasks import VideoClassification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.moving_digits, validation=1000, prepare=(ops.Standardize("unit"),)),
        model=VideoCNN(),
        task=VideoClassification(),
        optimizer=Optimizer(rule="adam", learning_rate=3e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2),
        steps="8epochs",
        batch_size=64,
        eval_batch_size=256,
    )
