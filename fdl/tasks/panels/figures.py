"""Drawing: small figures in one style, by matplotlib's Agg alone: no window, no global state, imported on first use."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db5", "#e08214", "#2a9d6f", "#c8323c", "#9aa3ad"
WIDTH = 9.6
"""Inches: the page's column is 960 CSS pixels wide, and a figure's inch is 100 of them."""
MOST_CLASSES = 40
"""More classes than this are not drawn one by one."""
MOST_POINTS = 1200
"""Points of a curve: a longer history is averaged in bins."""


def new(
    height: float, width: float = WIDTH, rows: int = 1, columns: int = 1, packed: bool = False
) -> tuple[Figure, np.ndarray]:
    """Make a figure of `width` x `height` inches and its axes [rows, columns], without overlaps; `packed`: nor gaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="compressed" if packed else "constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, color=GREY)
    return figure, axes


def label(text: Any, limit: int = 18) -> str:
    """Format data as a label: one printable line of at most `limit` characters, in which a dollar sign starts no formula."""
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))
    plain = plain if len(plain) <= limit else plain[: limit - 1] + "…"
    return plain.replace("$", r"\$")


def titled(ax: Axes, title: str = "", x: str = "", y: str = "", grid: bool = True) -> Axes:
    """Write the title and the axes' labels, and draw a faint grid."""
    ax.set_title(title, fontsize=10, loc="left", fontweight="bold")
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    if grid:
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
    return ax


def viewable(images: Any) -> np.ndarray:
    """Convert images of any kind [N, H, W(, C)] as uint8 [N, H, W, 1 or 3]; floats are stretched over their common range."""
    images = np.asarray(images)
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] not in (1, 3):
        images = images[..., :3] if images.shape[-1] > 3 else images[..., :1]
    if images.dtype == np.uint8:
        return images
    images = np.nan_to_num(images.astype(np.float32), posinf=0, neginf=0)
    low, high = (extreme(images, axis=(0, 1, 2)) for extreme in (np.min, np.max))
    return np.round(255 * (images - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)


def mosaic(images: Any, columns: int, gap: int = 1, ground: float = 255) -> np.ndarray:
    """Join viewable images [N, H, W, C] to one [rows * (H + gap) - gap, columns * (W + gap) - gap, C], row by row."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows, columns, height + gap, width + gap, channels), ground, images.dtype)
    for place, image in enumerate(images):
        sheet[place // columns, place % columns, :height, :width] = image
    joined = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), channels)
    return joined[: joined.shape[0] - gap, : joined.shape[1] - gap]


def picture(ax: Axes, image: np.ndarray, **options: Any) -> None:
    """Draw one viewable image [H, W, 1 or 3] in `ax`, pixels sharp, without ticks."""
    grey = image.shape[-1] == 1
    ax.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", **options)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def sheet(images: Any, columns: int, gap: int = 1) -> Figure:
    """Draw viewable images [N, H, W, C] as one `mosaic` over the whole width."""
    joined = mosaic(images, columns, gap)
    figure, axes = new(WIDTH * joined.shape[0] / joined.shape[1], packed=True)
    picture(axes[0, 0], joined)
    return figure


def class_bars(ax: Axes, classes: Sequence[str], probabilities: np.ndarray, colours: dict[int, str], most: int) -> None:
    """Draw the probabilities [C] as bars: all classes in order, or the `most` likeliest; `colours` by class number."""
    shown = np.arange(len(probabilities))
    if len(shown) > most:
        shown = np.argsort(-probabilities, kind="stable")[:most]
    ax.barh(range(len(shown)), probabilities[shown], color=[colours.get(int(i), GREY) for i in shown], height=0.75)
    ax.set_yticks(range(len(shown)), [label(classes[int(i)], 11) for i in shown], fontsize=6)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xticks([])
    ax.tick_params(length=0, pad=1)
    ax.spines[["bottom"]].set_visible(False)


def gallery(
    images: np.ndarray,
    titles: Sequence[tuple[str, str]],
    notes: Sequence[str],
    columns: int,
    bars: Sequence[tuple[Sequence[str], np.ndarray, dict[int, str]]] = (),
    most: int = 10,
    originals: Sequence[np.ndarray] = (),
) -> Figure:
    """Draw pictures in a grid, each under a title (text, colour) and over a note.

    Args:
        bars: class bars, drawn at the right of each picture.
        originals: pictures as they were read [H, W, 1 or 3], of any size, drawn at the left of each.
    """
    rows = -(-len(images) // columns)
    left = 1 if originals else 0
    panes = left + (2 if bars else 1)
    figure, axes = new(0.1 + rows * (1.6 if bars else 1.5), rows=rows, columns=columns * panes, packed=not bars)
    for ax in axes.flat:
        ax.set_axis_off()
    for place, image in enumerate(viewable(images)):
        row, column = divmod(place, columns)
        if originals:
            ax = axes[row, column * panes]
            ax.set_axis_on()
            picture(ax, originals[place])
            ax.set_xlabel("as read", fontsize=7, labelpad=2)
        ax = axes[row, column * panes + left]
        ax.set_axis_on()
        picture(ax, image)
        text, colour = titles[place]
        ax.set_title(text, fontsize=8, color=colour, fontweight="bold", pad=3)
        ax.set_xlabel(notes[place], fontsize=7, labelpad=2)
        if bars:
            ax = axes[row, column * panes + left + 1]
            ax.set_axis_on()
            class_bars(ax, *bars[place], most=most)
    return figure


def curves(history: Sequence[Mapping[str, Any]], monitor: str, best_step: int | None = None) -> Figure | None:
    """Draw loss, the monitored metric, learning rate and speed over the steps, whichever were logged (None if nothing was).

    Args:
        history: rows {"step", "train/loss", "eval/loss", ...}; what is not finite is left out.
        monitor: the metric shown beside the loss, from "train/..." and "eval/...".
        best_step: where the best checkpoint is marked.
    """
    wanted = [
        ("loss", ("train/loss",), ("eval/loss",)),
        (monitor, (f"train/{monitor}",), (f"eval/{monitor}",)),
        ("learning rate", ("learning_rate", "train/learning_rate"), ()),
        ("examples per second", ("examples_per_second",), ()),
    ]
    drawn = [
        (name, series(history, "step", first), series(history, "step", second))
        for place, (name, first, second) in enumerate(wanted)
        if not (place == 1 and monitor == "loss")
    ]
    drawn = [(name, first, second) for name, first, second in drawn if len(first[0]) or len(second[0])]
    if not drawn:
        return None
    lines = -(-len(drawn) // 2)
    figure, axes = new(2.9 * lines, rows=lines, columns=2)
    for ax in axes.flat[len(drawn) :]:
        ax.set_axis_off()
    for ax, (name, first, second) in zip(axes.flat, drawn, strict=False):
        compared = name in ("loss", monitor)
        titled(ax, label(name.replace("_", " "), 40), "step")
        _line(ax, *first, label="training", colour=BLUE)
        if len(second[0]):
            mark = "o" if len(second[0]) <= 60 else ""
            ax.plot(*second, color=ORANGE, marker=mark, markersize=3.5, linewidth=1.5, label="evaluation", zorder=3)
        if compared and best_step is not None and len(second[0]):
            ax.axvline(best_step, color=GREEN, linestyle=":", linewidth=1.2, label="best checkpoint")
        if compared:
            ax.legend(fontsize=8, frameon=False)
        values = np.concatenate([first[1], second[1]])
        if name == "loss" and len(values) > 20:  # the first steps' loss would flatten the rest of the curve
            low, high = values.min(), max(np.percentile(values, 98), second[1].max(initial=-math.inf))
            ax.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.08 * (high - low) + 1e-9)
    return figure


def series(
    rows: Sequence[Mapping[str, Any]], x: str, names: Sequence[str], most: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, values) of the first of `names` that was logged: finite values alone, averaged to at most `most` points."""
    for name in names:
        points = [(row[x], row[name]) for row in rows if _finite(row.get(x)) and _finite(row.get(name))]
        if points:
            bins = np.array_split(np.array(points, float), min(len(points), most))
            xs, values = np.array([part.mean(0) for part in bins]).T  # [2, points]
            return xs, values
    return np.empty(0), np.empty(0)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _line(ax: Any, steps: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    """Draw a curve; a long one faintly, under its running mean (over a twenty-fifth of it, ends included)."""
    if not len(steps):
        return
    if len(steps) < 50:
        ax.plot(steps, values, color=colour, linewidth=1.5, label=label, marker="o" if len(steps) == 1 else "")
        return
    ax.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    half = max(1, len(values) // 50)
    total = np.concatenate([[0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    ax.plot(steps, (total[high] - total[low]) / (high - low), color=colour, linewidth=1.5, label=label)


def png(figure: Figure, dots: int = 200) -> bytes:
    """Render `figure` as PNG, `dots` an inch (200 is two device pixels a CSS pixel)."""
    return _saved(figure, format="png", dpi=dots)


def data_uri(figure: Figure, limit: int = 350_000) -> str:
    """Render `figure` as a data URI: SVG, or PNG where it holds an image or its SVG would pass `limit` bytes.

    A PNG past `limit` is reduced to 256 colours, so that a page of many figures stays a few megabytes.
    """
    if not any(ax.images for ax in figure.axes):
        svg = _saved(figure, format="svg", metadata={"Date": None})
        if len(svg) <= limit:
            return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    image = png(figure)
    if len(image) > limit:
        image = _fewer_colours(image)
    return "data:image/png;base64," + base64.b64encode(image).decode()


def _saved(figure: Figure, **options: Any) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    # The salt makes the ids of an SVG, and so its bytes, the same in every run.
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "fdl"}):
        warnings.simplefilter("ignore", UserWarning)  # warnings of a script that the font lacks, a label without room
        figure.savefig(buffer, facecolor="white", **options)
    return buffer.getvalue()


def _fewer_colours(image: bytes) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
