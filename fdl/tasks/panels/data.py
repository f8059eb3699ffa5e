"""What a person wants to see of labelled data before anything is trained on it: counts, looks, augmentation."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fdl.data import columns, pipeline
from fdl.tasks.panels import figures
from fdl.tasks.task import Panel, View
from fdl.types import Arrays, count_examples, take


def pictures(rows: Arrays) -> np.ndarray | None:
    """Return the inputs [N, H, W, C] if they are images."""
    inputs = rows["inputs"]
    if isinstance(inputs, dict) or np.ndim(inputs) not in (3, 4):
        return None
    return figures.viewable(inputs)


def held(rows: Arrays) -> Arrays:
    """Read a few rows, with every column in memory."""
    return jax.tree.map(np.asarray, rows)


def _cropped(rows: Arrays, seed: int) -> Arrays:
    """Return columns that vary with each reading (random crops) as the feed reads them; others unchanged."""
    stream = pipeline.Stream(seed, count_examples(rows), count_examples(rows))

    def seen(leaf: Any) -> Any:
        varies = columns.is_column(leaf) and leaf.draws_shape is not None
        return columns.read_all(leaf, stream.draws(0, leaf.draws_shape)) if varies else leaf

    return jax.tree.map(seen, rows)


def class_counts(view: View) -> Panel:
    """Draw how many examples each class has, in training and in test."""
    splits = view.splits
    named = {"training": splits.train} | ({} if splits.test is None else {"test": splits.test})
    counts = {name: np.bincount(np.asarray(rows["targets"])) for name, rows in named.items()}
    count = max(len(splits.classes), *(len(each) for each in counts.values()))
    counts = {name: np.pad(each, (0, count - len(each))) for name, each in counts.items()}
    train = counts["training"]
    many = count > figures.MOST_CLASSES
    shown = np.argsort(-train, kind="stable")[: figures.MOST_CLASSES] if many else np.arange(count)
    names = splits.classes if len(splits.classes) == count else tuple(map(str, range(count)))
    figure, axes = figures.new(1.2 + 0.24 * len(shown), columns=len(counts))
    for ax, (title, each), colour in zip(axes[0], counts.items(), (figures.BLUE, figures.ORANGE), strict=False):
        figures.titled(ax, f"{title}: {each.sum():,} examples")
        ax.grid(False, axis="y")
        bars = ax.barh(range(len(shown)), each[shown], color=colour, height=0.72)
        ax.bar_label(bars, [f"{n:,}" for n in each[shown]], fontsize=7, padding=2)
        ax.set_yticks(range(len(shown)), [figures.label(names[i]) for i in shown], fontsize=8)
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.margins(x=0.12)
    ratio = train.max() / max(1, train[train > 0].min())
    some = f"The {len(shown)} commonest of {count} classes. " if many else ""
    spread = f"is {ratio:.3g} times as frequent as" if ratio > 1 else "is as frequent as"
    return Panel("Examples by class", f"{some}In training, the commonest class {spread} the rarest.", figure)


def examples(view: View, columns: int = 16) -> Panel | None:
    """Draw training images as they were read, by class."""
    rows, targets = view.splits.train, np.asarray(view.splits.train["targets"])
    if pictures(take(rows, slice(1))) is None:
        return None
    present = np.unique(targets)
    if len(present) > 20:
        images = pictures(take(rows, slice(columns * 8)))
        figure = figures.sheet(images, columns)
        return Panel("Training images", "The first of the training split, before any preparation.", figure)
    chosen = [np.flatnonzero(targets == number)[:columns] for number in present]
    blank = np.full_like(pictures(take(rows, slice(1))), 255)
    lines = [np.concatenate([pictures(take(rows, pick)), *([blank] * (columns - len(pick)))]) for pick in chosen]
    sheet = figures.mosaic(np.concatenate(lines), columns)
    figure, axes = figures.new(0.1 + (figures.WIDTH - 1.0) * sheet.shape[0] / sheet.shape[1], packed=True)
    figures.picture(axes[0, 0], sheet)
    step = sheet.shape[0] / len(present)
    names = view.splits.classes or tuple(map(str, range(int(present.max()) + 1)))
    axes[0, 0].set_yticks(
        step * (np.arange(len(present)) + 0.5), [figures.label(names[i]) for i in present], fontsize=9
    )
    axes[0, 0].tick_params(length=0)
    return Panel("Training images", f"The first {columns} of each class, before any preparation.", figure)


def augmentations(view: View, times: int = 11) -> Panel | None:
    """Draw one training image as each augmentation alone changes it, several times."""
    first = held(take(view.splits.train, slice(1)))
    if pictures(first) is None:
        return None
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, times, 0), first)
    lines = {}
    for name, change in view.augmentations:
        inputs = np.asarray(change(rows)["inputs"])
        if inputs.shape == rows["inputs"].shape and not np.array_equal(inputs, rows["inputs"]):
            lines[name] = figures.viewable(np.concatenate([first["inputs"].astype(inputs.dtype), inputs]))
    if not lines:
        return None
    sheet = figures.mosaic(np.concatenate(list(lines.values())), times + 1)
    figure, axes = figures.new(0.1 + (figures.WIDTH - 1.4) * sheet.shape[0] / sheet.shape[1], packed=True)
    figures.picture(axes[0, 0], sheet)
    high = sheet.shape[0] / len(lines)
    axes[0, 0].set_yticks(high * (np.arange(len(lines)) + 0.5), list(lines), fontsize=8)
    axes[0, 0].tick_params(length=0)
    return Panel("Each augmentation", "At the left a training image; beside it, changed by one op alone.", figure)


def augmented(view: View, pairs: int = 12) -> Panel | None:
    """Draw training images beside their augmented versions, as a training step gets them."""
    rows = take(view.splits.train, slice(2 * pairs))
    plain, changed = view.prepared(held(rows))["inputs"], view.augmented(held(_cropped(rows, view.seed)))["inputs"]
    if np.ndim(changed) not in (3, 4):
        return None
    if np.shape(plain) == np.shape(changed) and np.array_equal(plain, changed):
        return Panel("One training batch", "No augmentation: a training step is given the images as they are.")
    plain, changed = figures.viewable(plain), figures.viewable(changed)
    figure, axes = figures.new(3.1, rows=2, packed=True)
    for ax, half in zip(axes[:, 0], (slice(pairs), slice(pairs, None)), strict=True):
        size = changed.shape[1]
        sheet = figures.mosaic(np.concatenate([plain[half], changed[half]]), len(plain[half]))
        figures.picture(ax, sheet)
        ax.set_yticks([size / 2, size * 1.5], ["as prepared", "augmented"], fontsize=8)
        ax.tick_params(length=0)
    return Panel(
        "One augmented batch", "Above, images as evaluation sees them; below, the same as training does.", figure
    )
