"""A dense net on Fashion-MNIST: the first network of every course, with what makes it good.

Source: TensorFlow's "Basic classification" tutorial (Flatten, Dense 128, Dense 10; Adam, 10 epochs: 88.2 % test) and the
    benchmark table of Xiao, Rasul and Vollgraf 2017 (best MLP 88.3 %).
Command: python -m fdl.main --experiment=fashion_mlp
Hardware: 2 cores of an AMD EPYC 9005, no accelerator; jax 0.10.2
Result: 90.71 % test (90.49-91.04, seeds 0, 1, 2) in 1.3 min
"""

from fdl.data import Data, augment, ops, sources
from fdl.experiment import Experiment
from fdl.experiment.tuning import Choice, Log, Search, Uniform
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification


def experiment() -> Experiment:
    return Experiment(
        data=Data(
            load=sources.fashion_mnist,
            validation=2000,
            augment=(augment.Flip(), augment.Shift(pixels=1)),
            prepare=(ops.Standardize(),),
        ),
        model=MLP(widths=(1024, 512), batch_norm=True, dropout=0.1),
        task=Classification(label_smoothing=0.05),
        optimizer=Optimizer(rule="adam", learning_rate=3e-3, schedule="onecycle", warmup=0.2, weight_decay=1e-2),
        steps="30epochs",
        batch_size=256,
        eval_every="2epochs",
        save_every="2epochs",
    )


def search() -> Search:
    """--mode=sweep: around what is known to be good, which is the first trial."""
    return Search(
        {
            "optimizer.learning_rate": Log(1e-3, 1e-2),
            "optimizer.weight_decay": Log(1e-3, 1e-1),
            "model.dropout": Uniform(0, 0.3),
            "model.widths": Choice(("512,256", "1024,512", "1024,1024")),
            "task.label_smoothing": Uniform(0, 0.1),
        },
        trials=12,
    )
