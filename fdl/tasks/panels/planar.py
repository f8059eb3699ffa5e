"""What a classifier of points in the plane has learned, drawn over the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fdl.data.splits import Splits
from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import softmax
from fdl.tasks.task import Panel, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, "#7b4fa3", "#8c6d31", "#d45c9e", "#4f5964")
_SIDE = 160  # of the grid on which the model is asked
_MARGIN = 0.08  # around the points, as a share of their range


def planar(splits: Splits) -> bool:
    """Return whether the inputs are points in the plane, floats [N, 2], and the targets class numbers [N]."""
    inputs, targets = splits.train.get("inputs"), splits.train.get("targets")
    floats = isinstance(inputs, np.ndarray) and np.issubdtype(inputs.dtype, np.floating) and inputs.shape[1:] == (2,)
    return bool(floats and isinstance(targets, np.ndarray) and np.issubdtype(targets.dtype, np.integer))


def decision_boundary(view: View) -> Panel | None:
    """Draw the plane in the colours of the classes' probabilities, with all points; None where the inputs are no such points."""
    if not planar(view.splits):
        return None
    names = {"train": "training"} | ({} if view.splits.test is None else {"test": "test"})
    figure, axes = figures.new(4.6, columns=len(names))
    for ax, (split, name) in zip(axes[0], names.items(), strict=True):
        boundary(ax, view, name, split)
    axes[0, 0].legend(fontsize=8, markerscale=1.5)
    caption = "The stronger a colour, the surer the model is of that class; on the line it changes its mind. "
    return Panel("Decision boundary", caption + "Points in black circles are on the wrong side.", figure)


def boundary(ax: Axes, view: View, title: str = "", split: str = "train") -> None:
    """Draw the model's probabilities as colours, its decision as a line, and the points of one split of `planar` data.

    Args:
        ax: any axes, so that several models can be drawn side by side; the caller draws the legend.
        view: of a model with outputs [N, C], or [N, 1], the logit of the second of two classes.
        split: "train" or "test", whose points are drawn; points on the wrong side are circled.
    """
    from matplotlib.colors import to_rgb

    splits = view.splits
    everything = np.concatenate([rows["inputs"] for rows in (splits.train, splits.test) if rows is not None])
    low, high = everything.min(0), everything.max(0)
    low, high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
    xs, ys = (np.linspace(low[axis], high[axis], _SIDE, dtype=np.float32) for axis in (0, 1))
    grid = np.stack(np.meshgrid(xs, ys), -1)
    probabilities = softmax(view.outputs({"inputs": grid.reshape(-1, 2)})).reshape(_SIDE, _SIDE, -1)
    classes = probabilities.shape[-1]
    names = [COLOURS[number % len(COLOURS)] for number in range(classes)]
    colours = np.array([to_rgb(name) for name in names])
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    # Half way to white, so that points are visible on their own class's background.
    ax.imshow(0.5 + probabilities @ colours / 2, extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    for number in range(classes if classes > 2 else 1):
        margin = probabilities[..., number] - np.delete(probabilities, number, -1).max(-1)
        if margin.min() < 0 < margin.max():
            ax.contour(xs, ys, margin, levels=[0], colors="black", linewidths=0.9)
    rows = splits.train if split == "train" else splits.evaluated
    points, targets = np.asarray(rows["inputs"]), np.asarray(rows["targets"])
    for number in range(classes):
        name = splits.classes[number] if len(splits.classes) == classes else str(number)
        x, y = points[targets == number].T
        ax.scatter(x, y, 12, names[number], edgecolors="white", linewidths=0.4, label=figures.label(name), zorder=2)
    wrong = softmax(view.outputs({"inputs": points})).argmax(-1) != targets
    x, y = points[wrong].T
    ax.scatter(x, y, 34, facecolors="none", edgecolors="black", linewidths=0.8, zorder=3)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    figures.titled(ax, title, grid=False)
