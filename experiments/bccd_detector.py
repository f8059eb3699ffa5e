"""A one-stage detector of blood cells, from scratch.

Source: the heads, cells and losses of FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355) on a small residual network,
    for the BCCD pictures at 320 x 240. Published figures of detectors that begin with COCO's weights: mAP@0.5 .83 to .92.
Command: python -m fdl.main --experiment=bccd_detector
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, box_ops, ops, scenes, sources
from fdl.experiment import Experiment
from fdl.models import Detector
from fdl.optim import Optimizer
from fdl.tasks import Detection


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.bccd,
            augment=(box_ops.FlipBoxes(vertical=0.5), box_ops.Mosaic(), scenes.JitterColours()),
            prepare=(ops.Standardize(),),
        ),
        model=Detector(width=16, head=48),
        task=Detection(),
        optimizer=Optimizer(
            rule="adam", learning_rate=2e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2, clip_norm=5.0, ema=0.99
        ),
        steps="60epochs",
        batch_size=8,
        eval_batch_size=16,
        eval_every="10epochs",
        save_every="10epochs",
    )
