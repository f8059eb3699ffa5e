"""What a person wants to see of recordings: the spectra that the net is given, plain and as augmented."""

from __future__ import annotations

import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.panels.data import held
from fdl.tasks.task import Panel, View
from fdl.types import take

EXAMPLES = 10


def spectra(view: View) -> Panel:
    """Draw the log-mel spectrum of a test recording of each class with the answer, and one of training as augmented."""
    test = view.splits.evaluated
    truth = np.asarray(test["targets"])
    rows = held(take(test, np.array([int(np.argmax(truth == label)) for label in np.unique(truth)[:EXAMPLES]])))
    given = view.prepared(rows)["inputs"]
    probabilities = softmax(view.outputs(rows))
    names = class_names(view.splits, probabilities.shape[1])
    changed = view.augmented(held(take(view.splits.train, np.zeros(EXAMPLES // 2, int))))["inputs"]
    figure, axes = figures.new(5.2, rows=3, columns=EXAMPLES // 2)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, vectors, label, answer in zip(axes.flat, given["vectors"], rows["targets"], probabilities, strict=False):
        said = int(answer.argmax())
        title = figures.label(names[said]) + ("" if said == label else f" ({figures.label(names[int(label)], 10)})")
        ax.imshow(vectors.T, origin="lower", aspect="auto", cmap="magma")
        ax.set_title(f"{title}  {answer.max():.0%}", fontsize=8, color=figures.BLUE if said == label else figures.RED)
    for ax, vectors in zip(axes[2], changed["vectors"], strict=True):
        ax.imshow(vectors.T, origin="lower", aspect="auto", cmap="magma")
        ax.set_title("augmented", fontsize=8)
    text = (
        "Log-mel spectra, time to the right and pitch upwards, of test recordings: the answer is blue where right, red where "
        "wrong (the true class in brackets). Below, one training recording as the net is given it in five steps."
    )
    return Panel("What the net is given", text, figure)
