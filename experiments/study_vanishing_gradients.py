"""x"""

from experiments.adding_lstm import experiment as adding
from fdl.experiment import Experiment
from fdl.experiment.study import Study
from fdl.tasks.panels import memory

CELLS = {"rnn": "0", "gru": "{0}", "lstm": "{0}"}


def experiment() -> Experiment:
    return adding()


def study() -> Study:
    return Study(
        {
            f"{cell}, {length} steps": (
                f"data.load.length={length}", f"model.cell={cell}", f"model.longest={longest.format(length)}",
            )
            for length in (50, 200, 400)
            for cell, longest in CELLS.items()
        },
        seeds=1,
        metrics=("test/mse",),
        curves=("train/mse", "eval/mse"),
        log="y",
        compare=memory.compare,
    )  # fmt: skip
