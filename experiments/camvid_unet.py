"""A small U-Net that says what every pixel of a street scene is.

Source: Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597) on CamVid (Brostow et al. 2009) with 11 classes, as
    Badrinarayanan et al. 2017 (https://arxiv.org/abs/1511.00561) split and scored it; here at 240 x 180 pixels, not 480 x 360.
Command: python -m fdl.main --experiment=camvid_unet
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: not measured yet
"""

from fdl.data import Data, ops, scenes, sources
from fdl.experiment import Experiment
from fdl.models import UNet
from fdl.optim import Optimizer
from fdl.tasks import Segmentation


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.camvid,
            augment=(scenes.FlipMasks(), scenes.ScaleMasks(), scenes.JitterColours()),
            prepare=(scenes.PixelWeights(), ops.Standardize()),
        ),
        model=UNet(widths=(32, 64, 96), shrink=4, dropout=0.1),
        task=Segmentation(),
        optimizer=Optimizer(
            rule="adam", learning_rate=3e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2, ema=0.99
        ),
        steps="30epochs",
        batch_size=8,
        eval_batch_size=16,
        eval_every="5epochs",
        save_every="5epochs",
    )
