"""The activations and their derivatives, as they are computed."""

from __future__ import annotations

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from fdl.models import layers
from fdl.tasks.panels import figures
from fdl.tasks.task import Panel
from fdl.types import Activation


def activations(reach: float = 4.0) -> Panel:
    """Draw f and f' of each activation that a model can have, from -reach to reach; f' by differentiating f."""
    names = get_args(Activation)
    columns = 4
    x = jnp.linspace(-reach, reach, 401)
    figure, axes = figures.new(2.5 * -(-len(names) // columns), rows=-(-len(names) // columns), columns=columns)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        function = layers.activation(name)
        ax.axhline(0, color=figures.GREY, linewidth=0.7)
        ax.axvline(0, color=figures.GREY, linewidth=0.7)
        slope = np.asarray(jax.vmap(jax.grad(function))(x))
        # The slope of a kinked function jumps: a line up to it and a line from it, not one through it.
        broken = np.abs(np.diff(slope, append=slope[-1])) > 0.5
        ax.plot(x, function(x), color=figures.BLUE, linewidth=1.8, label="f")
        ax.plot(x, np.where(broken, np.nan, slope), color=figures.ORANGE, linewidth=1.4, label="f'")
        ax.set_ylim(-1.6, 2.6)
        figures.titled(ax, name.replace("_", " "))
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    caption = "The gradient that reaches the layers below is multiplied by f': where it is near 0, they learn nothing."
    return Panel("Activations and their derivatives", caption, figure)
