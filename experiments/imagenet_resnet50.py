"""ResNet-50 on ImageNet, from photographs that are decoded as they are needed.

Source: He et al. 2016 (https://arxiv.org/abs/1512.03385) as it is trained by Goyal et al. 2017
    (https://arxiv.org/abs/1706.02677): batch 256, rate 0.1, 5 epochs of warm-up, 90 epochs, l2 of 1e-4, blocks that start
    as the identity. With a cosine, label smoothing and no decay of biases and scales as He et al. 2019 have them
    (https://arxiv.org/abs/1812.01187), and Nesterov's momentum. torchvision's weights of the same net, IMAGENET1K_V1, have
    76.13 % top-1 on the publisher's validation split: the same batch, rate and epochs, by a plainer recipe (the rate
    divided by 10 every 30 epochs, no warm-up, no smoothing, everything decayed).
Command: python -m fdl.main --experiment=imagenet_resnet50 --set model.dtype=bfloat16
    With the photographs in DATA_DIR/imagenet/train/CLASS/ and DATA_DIR/imagenet/val/CLASS/, or prepared by TFDS. The test
    split is the publisher's validation split; no rows choose a checkpoint, the last one counts, as published.
    `--set data.validation=10000` cuts some from training for a curve while it trains.
Hardware: 90 epochs are 2.8e18 FLOPs. The pipeline alone (decoding, random crops to 224, batches of 64) takes a second of a
    core's time for 580 to 630 generated JPEGs of 500 x 375, 47 kB each (4 rounds; 2 cores of an AMD EPYC 9005 that other
    processes used as well, Python 3.11, Pillow 13).
Result: not trained here: only steps on the stand-in were run
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.models import ResNet50
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load=sources.imagenet, augment=(augment.Flip(),), prepare=(ops.Standardize("imagenet"),)),
        model=ResNet50(),
        task=Classification(label_smoothing=0.1),
        optimizer=Optimizer(rule="nesterov", learning_rate=0.1, schedule="cosine", warmup=5 / 90, l2=1e-4),
        steps="90epochs",
        batch_size=256,
        eval_batch_size=256,
    )
