"""How far back a recurrent net's answer depends on its inputs: gradients over time, of several nets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.task import Panel, View
from fdl.types import take

ROWS = 64
_COLOURS = {"rnn": figures.RED, "gru": figures.ORANGE, "lstm": figures.BLUE}


def gradient_norms(view: View, variables: Mapping[str, Any], inputs: Any) -> np.ndarray:
    """Compute the norm of the answer's gradient by each time step's inputs, [T], the mean over the rows [B, T, E]."""

    def total(x: jax.Array) -> jax.Array:
        answers: Any = view.model.apply(variables, x, train=False)
        return answers.sum()  # rows do not touch each other

    gradient = jax.grad(total)(jnp.asarray(inputs))
    return np.asarray(jnp.sqrt(jnp.square(gradient).sum(-1)).mean(0))


def compare(views: Mapping[str, View]) -> Panel | None:
    """Draw the gradient norms over time of nets as they are drawn and as they are trained, a line for each variant."""
    if not views:
        return None
    figure, axes = figures.new(4.4, columns=2)
    smallest: list[float] = []
    lengths: list[int] = []
    for label, view in views.items():
        rows = take(view.splits.evaluated, slice(ROWS))
        inputs = np.asarray(view.prepared(rows)["inputs"])
        lengths += [inputs.shape[1]] * (inputs.shape[1] not in lengths)
        start = view.model.init(jax.random.key(view.seed), inputs, train=False)
        colour = _COLOURS.get(getattr(view.model, "cell", ""), figures.GREY)
        style = ("-", "--", ":")[lengths.index(inputs.shape[1]) % 3]
        for ax, variables in zip(axes[0], (start, view.variables), strict=True):
            norms = np.maximum(gradient_norms(view, variables, inputs), 1e-30)
            back = np.arange(len(norms))[::-1]
            ax.plot(back, norms, style, color=colour, linewidth=1.3, label=figures.label(label, 24))
            smallest.append(norms.min())
    for ax, title in zip(axes[0], ("before training", "after training"), strict=True):
        figures.titled(ax, title, "time steps before the answer", "norm of the gradient")
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(1e-12, min(smallest)))
    axes[0, 0].legend(fontsize=7, frameon=False)
    text = (
        "The norm of the answer's gradient by the inputs of each time step, the mean over test rows. What falls towards zero to "
        "the right is forgotten: no step of training can teach the net to use it (Hochreiter 1991; Bengio et al. 1994)."
    )
    return Panel("How far back the answer reaches", text, figure)
