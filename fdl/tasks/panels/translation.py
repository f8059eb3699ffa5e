"""What a person wants to see of a translation: what it says beside the truth, and where it looks."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from fdl.data.pairs import SPECIAL, codec
from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import take

SHOWN = 12
MAPS = 4


def panels(view: View, signature: str) -> list[DrawPanel]:
    """List the panels; `signature` says how BLEU is computed, where it is."""
    if view.splits.test is None:
        return []
    return [lambda: _examples(view, signature), lambda: attention_maps(view)]


def _examples(view: View, signature: str) -> Panel:
    known = codec(view.splits.facts)
    rows = take(view.splits.evaluated, slice(SHOWN))
    table = []
    for batch, tokens in view.over(rows):
        for source, target, made in zip(batch["inputs"]["tokens"], batch["targets"], np.asarray(tokens), strict=True):
            table.append([known.decode(_tokens(numbers)) for numbers in (source, made, target)])
    caption = "The first test rows." + (f" BLEU as sacrebleu computes it: {signature}." if signature else "")
    return Panel("Translations", caption, header=("source", "translation", "target"), rows=table)


def _tokens(numbers: Any) -> list[int]:
    """Return the tokens that are no special ones, up to END."""
    kept = [int(number) for number in numbers]
    end = SPECIAL.index("<end>")
    kept = kept[: kept.index(end)] if end in kept else kept
    return [number for number in kept if number >= len(SPECIAL)]


def attention_maps(view: View) -> Panel | None:
    """Draw where the decoder looks while it writes each token of its own translation, for models that show it."""
    vocabulary = view.splits.facts.vocabulary
    rows = take(view.splits.evaluated, slice(MAPS))
    found = []
    apply = jax.jit(functools.partial(view.model.apply, mutable=["intermediates"]))
    for batch, tokens in view.over(rows):
        before = np.pad(np.asarray(tokens), ((0, 0), (1, 0)), constant_values=SPECIAL.index("<begin>"))[:, :-1]
        _, shown = apply(view.variables, batch["inputs"], before)
        weights = _last_weights(shown.get("intermediates", {}))
        if weights is None:
            return None
        found += list(zip(batch["inputs"]["tokens"], np.asarray(tokens), weights, strict=True))
    figure, axes = figures.new(4.6 * -(-len(found) // 2), columns=2, rows=-(-len(found) // 2))
    for place, ax in enumerate(axes.ravel()):
        if place >= len(found):
            ax.set_axis_off()
            continue
        source, made, weights = found[place]
        width, height = int((source != 0).sum()), int((made != 0).sum())
        ax.imshow(weights[:height, :width], cmap="Blues", vmin=0, aspect="auto")
        names = [[_name(vocabulary[int(n)]) for n in side] for side in (source[:width], made[:height])]
        ax.set_xticks(range(width), names[0], rotation=90, fontsize=7)
        ax.set_yticks(range(height), names[1], fontsize=7)
        figures.titled(ax, "", "source", "written", grid=False)
    return Panel(
        "Where it looks", "Attention to the source's tokens while each token is written; darker is more.", figure
    )


def _name(token: str) -> str:
    return figures.label(token.replace("\u0120", "_"), 12)


def _last_weights(shown: Any) -> np.ndarray | None:
    """Return [B, T, S]: the recurrent decoder's attention, or the mean over the heads of a Transformer's last layer."""
    if "attention" in shown:
        return np.asarray(shown["attention"])
    decoder = shown.get("decoder", {})
    last = max((name for name in decoder if "memory_attention" in decoder[name]), default=None)
    return None if last is None else np.asarray(decoder[last]["memory_attention"]["weights"]).mean(1)
