"""What a person wants to see of a language model: what it writes, and where and on which characters it errs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import take

MOST_POSITIONS = 200_000
"""Characters of the test split that are used: their logits must fit into memory."""


def panels(view: View, samples: Callable[[], Mapping[float, str]]) -> list[DrawPanel]:
    """List the panels; `samples` (temperature -> text) is called when its panel is drawn."""
    if view.splits.test is None:
        return [lambda: _samples(samples())]
    losses = functools.cache(lambda: measure_losses(view))
    return [
        lambda: _samples(samples()),
        lambda: by_position(losses()),
        lambda: passage(losses()),
        lambda: confused(losses()),
    ]


@dataclasses.dataclass(frozen=True)
class TokenLosses:
    """The model over the first test windows: targets, predicted, loss (nats) and mask, all [M, T]; the vocabulary."""

    targets: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    mask: np.ndarray
    vocabulary: Sequence[str]


def measure_losses(view: View) -> TokenLosses:
    """Ask the model about as many test windows as MOST_POSITIONS allows."""
    test = view.splits.evaluated
    rows = take(test, slice(max(1, MOST_POSITIONS // max(1, np.shape(test["inputs"])[1]))))
    batch = view.prepared(rows)
    targets = np.asarray(batch["targets"])
    mask = np.asarray(batch.get("mask", np.ones(targets.shape))) > 0
    logits = np.array(view.outputs(rows), np.float32)
    predicted = logits.argmax(-1)
    logits -= logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    loss = np.log(np.exp(logits, out=logits).sum(-1)) - chosen
    return TokenLosses(targets, predicted, loss, mask, view.splits.facts.vocabulary)


def _samples(texts: Mapping[float, str]) -> Panel:
    parts = [f"──── temperature {temperature:g} ────\n{text}" for temperature, text in texts.items()]
    return Panel(
        "Samples",
        "The same prompt continued at several temperatures: the lower, the more the likeliest character is preferred.",
        text="\n\n".join(parts),
    )


def by_position(result: TokenLosses) -> Panel:
    """Draw the mean loss at each place of the window: how much context helps."""
    counts = result.mask.sum(0)
    means = np.where(result.mask, result.loss, 0).sum(0)[counts > 0] / counts[counts > 0]
    figure, axes = figures.new(3.2)
    ax = figures.titled(axes[0, 0], "", "characters seen before, in this window", "loss (nats a character)")
    ax.plot(np.flatnonzero(counts), means, color=figures.BLUE, linewidth=1.2)
    mean = result.loss[result.mask].mean()
    ax.axhline(mean, color=figures.GREY, linestyle=":", linewidth=1)
    text = f"The mean over {result.mask.sum():,} characters of the test split is {mean:.3f} (dotted)."
    return Panel("Loss by place in the window", f"{text} Every window starts without memory.", figure)


def passage(result: TokenLosses, width: int = 96, lines: int = 8) -> Panel:
    """Draw a passage of the test text, each character coloured by its loss."""
    kept = result.mask.ravel()
    targets, loss = result.targets.ravel()[kept][: width * lines], result.loss.ravel()[kept][: width * lines]
    lines = -(-len(targets) // width)
    sheet = np.full(width * lines, np.nan)
    sheet[: len(loss)] = loss
    figure, axes = figures.new(0.8 + 0.27 * lines)
    ax = axes[0, 0]
    image = ax.imshow(sheet.reshape(lines, width), cmap="Reds", vmin=0, vmax=8, aspect="auto", interpolation="nearest")
    for place, token in enumerate(targets):
        char = result.vocabulary[int(token)]
        shown = {"\n": "⏎", " ": ""}.get(char) or figures.label(char, 1)
        if char != " ":
            dark = sheet[place] > 5
            ax.text(
                place % width,
                place // width,
                shown,
                ha="center",
                va="center",
                fontsize=8,
                family="monospace",
                color="white" if dark else "black",
            )
    figures.titled(ax, grid=False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="nats", pad=0.01)
    return Panel(
        "What surprises it", "The beginning of the test text; the redder a character, the less it was expected.", figure
    )


def confused(result: TokenLosses, count: int = 12) -> Panel | None:
    """Tabulate the pairs (true, predicted) that make up most of the mistakes."""
    wrong = result.mask & (result.targets != result.predicted)
    if not wrong.any():
        return None
    size = len(result.vocabulary)
    pairs = np.bincount(result.targets[wrong].astype(np.int64) * size + result.predicted[wrong], minlength=size * size)
    rows = []
    for pair in np.argsort(-pairs, kind="stable")[:count]:
        if pairs[pair]:
            true, said = divmod(int(pair), size)
            names = (repr(result.vocabulary[i]) for i in (true, said))
            rows.append((*names, f"{pairs[pair]:,}", f"{pairs[pair] / wrong.sum():.2%}"))
    caption = (
        f"{1 - wrong.sum() / result.mask.sum():.1%} of {result.mask.sum():,} characters were expected. Of the rest:"
    )
    return Panel(
        "Characters most often missed", caption, header=("next", "expected", "times", "of all mistakes"), rows=rows
    )
