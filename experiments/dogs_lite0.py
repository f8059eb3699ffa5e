"""Twelve breeds of dogs from the frozen features of a net that has seen ImageNet; `dogs_lite0_tuned` goes on from here.

Source: the project that ends a course on transfer learning with Kaggle's dog-breed-identification (a frozen net, a Dense
    layer; 0.7676 on 120 breeds with EfficientNetV2). These photographs (Stanford Dogs, Khosla et al. 2011) come from
    ImageNet's training set: the weights have seen them, labels included, so the figure says nothing of other dogs.
Command: python -m fdl.main --experiment=dogs_lite0
    Pictures in DATA_DIR/stanford-dogs-12/BREED/; timm's weights as DATA_DIR/pretrained/tf_efficientnet_lite0.safetensors, or
    fetched from the hub (pip install 'fdl[hub]'). A fifth of every breed is the test split, a tenth of the rest chooses the
    checkpoint. All 120 breeds: --set data=tfds:stanford_dogs,size=224,224,crop=true; Kaggle's own files:
    --set data=folder:dog-breed-identification,labels=labels.csv,size=224,224,crop=true, a subset first with
    --set num_examples=1000, then --mode=predict --input=dog-breed-identification/sample_submission.csv writes submission.csv.
Hardware: 2 cores of an AMD EPYC 9005, shared with other work; jax 0.10.2
Result: 96.48 % test (96.48-97.24, seeds 0, 1, 2; 398 photographs); majority class 10.05 %, logistic regression on the pixels
    22.9 %, on the same features 96.73 %, which is what the head is. 178 s of CPU time with computing the features, evaluating
    and the report, 71 s once they are kept; the head itself trains in seconds.
"""

from fdl.data import Data, ops
from fdl.experiment import Experiment
from fdl.models import EfficientNetLite
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load="folder:stanford-dogs-12,size=224,224,crop=true", validation="10%", cut="stratified",
            prepare=(ops.Standardize("signed"),),
        ),
        model=EfficientNetLite(),
        task=Classification(label_smoothing=0.1),
        optimizer=Optimizer(
            learning_rate=1e-3, schedule="cosine", weight_decay=1e-2, freeze=("stem", "stage*", "head")
        ),
        steps="40epochs",
        batch_size=64,
        eval_batch_size=32,
        eval_every="2epochs",
        save_every="20epochs",
        patience=3,
        init_from="pretrained/tf_efficientnet_lite0.safetensors | hf:timm/tf_efficientnet_lite0.in1k",
        cache_frozen=True,
    )  # fmt: skip
