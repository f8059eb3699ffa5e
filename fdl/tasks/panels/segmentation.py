"""What a person wants to see of a segmentation: the classes laid over the pictures, and each class's score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fdl.data.formats.masks import VOID
from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names
from fdl.tasks.panels.data import held
from fdl.tasks.task import Panel, View
from fdl.types import Arrays, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def colours(count: int) -> np.ndarray:
    """Return a colour for each class, uint8 [count, 3], apart in hue and brightness; the last of 256 is void's grey."""
    import matplotlib

    known = matplotlib.colormaps["tab20"](np.arange(20))[:, :3]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return np.round(255 * known[[order[number % 20] for number in range(count)]]).astype(np.uint8)


def overlay(picture: np.ndarray, labels: np.ndarray, share: float = 0.55) -> np.ndarray:
    """Lay the colours of labels [H, W] over a viewable picture [H, W, 1 or 3]: uint8 [H, W, 3]; void is left as it is."""
    ground = np.broadcast_to(picture, (*labels.shape, 3)).astype(np.float64)
    palette = colours(int(labels[labels != VOID].max(initial=0)) + 1)
    mixed = (1 - share) * ground + share * palette[np.where(labels == VOID, 0, labels)]
    return np.round(np.where((labels == VOID)[..., None], ground, mixed)).astype(np.uint8)


def overlays(view: View, count: int = 6) -> Panel:
    """Draw test pictures from all over the split: plain, under the true classes, under the predicted ones."""
    rows = view.splits.evaluated
    chosen = np.linspace(0, len(rows["targets"]) - 1, min(count, len(rows["targets"]))).astype(int)
    some = held(take(rows, chosen))
    predicted = view.outputs(some).argmax(-1)
    images = figures.viewable(some["inputs"])
    lines = [
        np.stack([np.broadcast_to(image, (*truth.shape, 3)), overlay(image, truth), overlay(image, said)])
        for image, truth, said in zip(images, some["targets"], predicted, strict=True)
    ]
    caption = "From left to right: the picture, the true classes over it, the predicted ones."
    return Panel(
        "Segmentations", caption, _figure(np.concatenate(lines), 3, class_names(view.splits, len(view.splits.classes)))
    )


def _figure(images: np.ndarray, columns: int, names: Sequence[str]) -> Figure:
    sheet = figures.mosaic(images, columns, gap=3)
    figure, axes = figures.new(0.4 + figures.WIDTH * sheet.shape[0] / sheet.shape[1])
    figures.picture(axes[0, 0], sheet)
    for colour, name in zip(colours(len(names)), names, strict=True):
        axes[0, 0].plot([], [], "s", color=colour / 255, label=figures.label(name))
    axes[0, 0].legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=6, fontsize=7, frameon=False)
    return figure


def table(view: View) -> Panel:
    """Print each class's share of the test pixels and its intersection over union."""
    rows = view.splits.evaluated
    names = class_names(view.splits, len(view.splits.classes))
    counts = np.zeros((3, len(names)), np.int64)
    for batch, predicted in view.over(rows):
        counts += _counts(batch, predicted, len(names))
    intersection, union, own = counts
    rows_shown = [
        [name, f"{share:.2%}", f"{both / max(1, either):.1%}"]
        for name, share, both, either in zip(names, own / max(1, own.sum()), intersection, union, strict=True)
    ]
    return Panel("Classes", "", header=["class", "share of pixels", "intersection over union"], rows=rows_shown)


def _counts(batch: Arrays, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels of each class's intersection, union and own, [3, K]."""
    known = batch["targets"] != VOID
    true, said = batch["targets"][known].astype(np.int64), predicted[known]
    own, given = np.bincount(true, minlength=classes), np.bincount(said, minlength=classes)
    both = np.bincount(true[true == said], minlength=classes)
    return np.stack([both, own + given - both, own])


def label_png(labels: np.ndarray) -> bytes:
    """Write class numbers [H, W] as a PNG with a palette of their colours."""
    from PIL import Image

    image = Image.fromarray(labels, mode="L").convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette(colours(256).ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sheet_png(images: Sequence[np.ndarray], names: Sequence[str]) -> bytes:
    """Draw pictures of one size [H, W, 3] side by side over the legend, as a PNG."""
    return figures.png(_figure(np.stack(images), min(4, len(images)), names))
