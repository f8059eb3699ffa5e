"""What a person wants to see of a detector: its boxes beside the true ones; how many there are of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names
from fdl.tasks.panels.data import held
from fdl.tasks.panels.segmentation import colours
from fdl.tasks.task import Panel, View
from fdl.types import Arrays, take

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def counts(view: View) -> Panel:
    """Print how many boxes of each class there are, and how large they are."""
    parts = {"training": view.splits.train, "validation": view.splits.validation, "test": view.splits.test}
    shown = {name: rows["targets"] for name, rows in parts.items() if rows is not None}
    lines = []
    for number, name in enumerate(class_names(view.splits, len(view.splits.classes))):
        train = shown["training"]
        sides = (train["boxes"][..., 2:] - train["boxes"][..., :2])[train["classes"] == number]
        size = f"{np.median(sides[:, 0]):.0f} x {np.median(sides[:, 1]):.0f}" if len(sides) else "-"
        lines.append([name, *(int((targets["classes"] == number).sum()) for targets in shown.values()), size])
    header = ["class", *shown, "median size in training, pixels"]
    return Panel("Boxes by class", "", header=header, rows=lines)


def augmented(view: View, count: int = 8) -> Panel:
    """Draw training pictures as a training step is given them, with their boxes."""
    rows = held(take(view.splits.train, slice(count)))
    changed = view.augmented(rows)
    targets = changed["targets"]
    images = figures.viewable(changed["inputs"])
    drawn = [(image, _own(targets, row)) for row, image in enumerate(images)]
    figure = _figure(drawn, class_names(view.splits, len(view.splits.classes)), columns=4)
    return Panel("One augmented batch", "Training pictures as a training step is given them.", figure)


def _own(targets: Arrays, row: int) -> Arrays:
    real = targets["classes"][row] >= 0
    return {name: values[row][real] for name, values in targets.items()}


def found(view: View, least: float, count: int = 6) -> Panel:
    """Draw test pictures from all over the split with their true boxes, and beside them with the detections."""
    rows = view.splits.evaluated
    number = len(rows["inputs"])
    some = held(take(rows, np.linspace(0, number - 1, min(count, number)).astype(int)))
    made = view.decoded(some)
    drawn = []
    for row, image in enumerate(figures.viewable(some["inputs"])):
        kept = made["scores"][row] >= least
        drawn += [
            (image, _own(some["targets"], row)),
            (image, {name: values[row][kept] for name, values in made.items()}),
        ]
    caption = f"At the left the annotated boxes; at the right the detections of a score of {least:g} or more."
    return Panel("Detections", caption, _figure(drawn, class_names(view.splits, len(view.splits.classes)), columns=2))


def _figure(drawn: Sequence[tuple[np.ndarray, Arrays]], names: Sequence[str], columns: int) -> Figure:
    columns = min(columns, len(drawn))
    lines = -(-len(drawn) // columns)
    height, width = drawn[0][0].shape[:2]
    figure, axes = figures.new(0.4 + lines * figures.WIDTH / columns * height / width, rows=lines, columns=columns)
    palette = colours(len(names)) / 255
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (image, boxes) in zip(axes.flat, drawn, strict=False):
        figures.picture(ax, image)
        _draw(ax, boxes, palette)
    for colour, name in zip(palette, names, strict=True):
        axes[0, 0].plot([], [], "s", color=colour, label=figures.label(name))
    figure.legend(loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    return figure


def _draw(ax: Axes, boxes: Arrays, palette: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for number, (left, top, right, bottom) in enumerate(boxes["boxes"]):
        colour = palette[boxes["classes"][number]]
        ax.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2)
        )
        if "scores" in boxes:
            ax.text(left, top - 1, f"{boxes['scores'][number]:.2f}", fontsize=5, color=colour)


def sheet_png(drawn: Sequence[tuple[np.ndarray, Arrays]], names: Sequence[str]) -> bytes:
    """Draw pictures with their boxes as a PNG."""
    return figures.png(_figure(drawn, names, columns=2))
