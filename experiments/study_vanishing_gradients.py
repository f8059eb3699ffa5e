"""Why simple recurrent nets forget: the adding problem at 50, 200 and 400 steps, with the gradients over time side by side.

Source: Hochreiter 1991; Bengio, Simard and Frasconi 1994; Hochreiter and Schmidhuber 1997.
Command: python -m fdl.main --experiment=study_vanishing_gradients
Hardware: 2 cores of an AMD EPYC 9005, shared with other work, no accelerator; jax 0.10.2
Result: not measured yet
"""

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
