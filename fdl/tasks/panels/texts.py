"""What a person wants to see of a classifier of texts: which words decided."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import class_names, softmax
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import Arrays, take

SHOWN = 8
"""Texts of a panel."""
WORDS = 24
"""Words of a text that are shown."""


def panels(view: View) -> list[DrawPanel]:
    """List the panels, for models with methods `embed` and `classify`."""
    if view.splits.test is None or not (hasattr(view.model, "embed") and hasattr(view.model, "classify")):
        return []
    return [
        lambda: deciding_words(view, "Words that decided", "The first test texts."),
        lambda: deciding_words(view, "Words that misled", "Wrong answers of which the model was surest.", wrong=True),
    ]


def deciding_words(view: View, title: str, caption: str, wrong: bool = False) -> Panel | None:
    """Draw test texts, each word blue where it speaks for the class chosen and red where against it."""
    rows = take(view.splits.evaluated, slice(0, 2000 if wrong else SHOWN))
    probabilities = softmax(view.outputs(rows))
    predicted, truth = probabilities.argmax(1), np.asarray(rows["targets"])
    picks = np.arange(len(truth))
    if wrong:
        picks = np.flatnonzero(predicted != truth)
        picks = picks[np.argsort(-probabilities[picks, predicted[picks]], kind="stable")][:SHOWN]
    if not len(picks):
        return None
    chosen = take(rows, picks)
    shares = word_shares(view, chosen, predicted[picks])
    names = class_names(view.splits, probabilities.shape[1])
    titles = [f"{names[predicted[i]]} {probabilities[i].max():.0%}" + (f"  (is {names[truth[i]]})" if wrong else "") for i in
              picks]  # fmt: skip
    vocabulary = view.splits.facts.vocabulary
    texts = [[vocabulary[t] for t in tokens[:WORDS]] for tokens in np.asarray(chosen["inputs"]["tokens"])]
    figure, axes = figures.new(0.55 * len(picks) + 0.4)
    ax = figures.titled(axes[0, 0], grid=False)
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(len(picks), 0)
    _write(ax, titles, texts, shares, np.asarray(chosen["inputs"]["mask"]))
    return Panel(
        title,
        f"{caption} Blue speaks for the class chosen, red against it: gradient of its logit times the word's vector, with the "
        "n-grams that begin with the word.",
        figure,
    )


def _write(ax: Any, titles: list[str], texts: list[list[str]], shares: np.ndarray, mask: np.ndarray) -> None:
    for row, (title, words) in enumerate(zip(titles, texts, strict=True)):
        ax.text(0, row + 0.25, title, fontsize=7, color=figures.GREY, va="center")
        largest, left = max(1e-9, float(np.abs(shares[row]).max())), 0.0
        for place, word in enumerate(words):
            if not mask[row, place] or left > 0.97:
                break
            share = float(shares[row, place]) / largest
            shown = figures.label(word, 16)
            colour = figures.BLUE if share > 0 else figures.RED
            box = {"facecolor": colour, "alpha": min(0.6, 0.6 * abs(share)), "edgecolor": "none", "pad": 1}
            ax.text(left, row + 0.65, shown, fontsize=8, family="monospace", va="center", bbox=box)
            left += 0.0088 * (len(shown) + 1)


def word_shares(view: View, rows: Arrays, classes: np.ndarray) -> np.ndarray:
    """Return each word's share in the logit of its text's class, [N, T]: gradient x input, summed over its vector.

    The shares of a linear model over bags add up to its logit (without the bias).
    """
    inputs = view.prepared(rows)["inputs"]

    def logit(embedded: Any) -> Any:
        logits: Any = view.model.apply(view.variables, embedded, inputs["mask"], method="classify")
        return logits[np.arange(len(classes)), classes].sum()

    embedded = view.model.apply(view.variables, inputs, method="embed")
    products = jax.tree.map(lambda d, x: np.asarray((d * x).sum(-1)), jax.grad(logit)(embedded), embedded)
    length = np.shape(inputs["mask"])[1]
    parts = [leaf.reshape(len(classes), -1, length).sum(1) for leaf in jax.tree.leaves(products)]
    return np.sum(parts, axis=0) * (np.asarray(inputs["mask"]) != 0)
