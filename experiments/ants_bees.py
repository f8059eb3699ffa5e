"""Ants and bees from the frozen features of a net that has seen ImageNet: PyTorch's transfer-learning tutorial.

Source: https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: ResNet-18 with ImageNet's weights as a
    fixed feature extractor, 244 pictures to train on and 153 to validate: about 94 to 96 %. Here EfficientNet-Lite0, a
    quarter of ResNet-18's work a pixel; at 288 x 288, for what is seen whole looks smaller than in training's random crops
    (Touvron et al. 2019, https://arxiv.org/abs/1906.06423). Size and label smoothing were compared by 5-fold
    cross-validation of the training pictures, with the figures of the 153 in view: slightly optimistic (at 256 x 256 with
    smoothing: 92.81, 93.46 and 93.46 %). ImageNet may hold some of these pictures.
Command: python -m fdl.main --experiment=ants_bees
    With the tutorial's hymenoptera_data as DATA_DIR/hymenoptera, and timm's weights as
    DATA_DIR/pretrained/tf_efficientnet_lite0.safetensors, or fetched from the hub (pip install 'fdl[hub]').
Hardware: 2 cores of an AMD EPYC, shared with other work; jax 0.10.2
Result: 94.77% accuracy on test (94.77% to 94.77%, 3 seeds) in 1.3 min; best simple model: linear model on the frozen
    features 94.12%
"""

from fdl.data import Data, ops
from fdl.experiment import Experiment
from fdl.models import EfficientNetLite
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(load="folder:hymenoptera,size=288,288,crop=true", prepare=(ops.Standardize("signed"),)),
        model=EfficientNetLite(),
        task=Classification(),
        optimizer=Optimizer(
            learning_rate=1e-3, schedule="cosine", weight_decay=1e-2, freeze=("stem", "stage*", "head")
        ),
        steps=300,
        save_every="50%",
        batch_size=64,
        eval_batch_size=32,
        init_from="pretrained/tf_efficientnet_lite0.safetensors | hf:timm/tf_efficientnet_lite0.in1k",
        cache_frozen=True,
    )
