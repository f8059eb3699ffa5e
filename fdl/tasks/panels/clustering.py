"""What a person wants to see of clusters: the plane they can be drawn in, their centres, what they hold."""

from __future__ import annotations

import numpy as np

from fdl.tasks.panels import figures, generation
from fdl.tasks.panels.answers import class_names
from fdl.tasks.panels.data import pictures
from fdl.tasks.task import Panel, View
from fdl.types import take

_SHOWN = 2000
"""Points of the embedding; t-SNE takes seconds for these."""


def embedding(view: View, codes: np.ndarray, clusters: np.ndarray) -> Panel:
    """Draw codes [N, L] in the plane by t-SNE, coloured by class and by cluster [N]."""
    from sklearn.manifold import TSNE

    chosen = np.random.default_rng(0).permutation(len(codes))[:_SHOWN]
    perplexity = min(30.0, max(1.0, (len(chosen) - 1) / 3))
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(codes[chosen].astype(np.float64))
    classes = np.asarray(view.splits.evaluated["targets"])[chosen]
    figure, axes = figures.new(4.6, columns=2)
    for ax, title, colours in zip(axes[0], ("by class", "by cluster"), (classes, clusters[chosen]), strict=True):
        figures.titled(ax, title, grid=False)
        ax.scatter(*plane.T, c=colours, cmap="tab10" if colours.max() < 10 else "tab20", s=4, linewidths=0)
        ax.set_xticks([])
        ax.set_yticks([])
    caption = f"The codes of {len(chosen):,} rows, {codes.shape[1]} numbers each, in the plane by t-SNE."
    return Panel("Embedding", caption, figure)


def centres(view: View, assignments: np.ndarray, count: int = 14) -> Panel | None:
    """Draw, for each cluster, what the decoder makes of its centre and the rows surest to be in it."""
    rows = view.splits.evaluated
    if pictures(take(rows, slice(1))) is None:
        return None
    decoded = figures.viewable(generation.decode(view, np.asarray(view.variables["params"]["centres"])))
    lines = []
    for number, centre in enumerate(decoded):
        held = take(rows, np.argsort(-assignments[:, number], kind="stable")[:count])
        lines.append(np.concatenate([centre[None], figures.viewable(held["inputs"])]))
    figure = figures.sheet(np.concatenate(lines), count + 1)
    return Panel(
        "Clusters", "At the left a cluster's decoded centre; beside it the pictures surest to be in it.", figure
    )


def table(view: View, counts: np.ndarray) -> Panel:
    """Print how many rows of each class [cluster, class] a cluster holds."""
    names = class_names(view.splits, counts.shape[1])
    order = np.argsort(counts.argmax(1), kind="stable")
    rows = [[int(cluster), *map(int, counts[cluster])] for cluster in order]
    return Panel("Clusters and classes", "Rows of each class in each cluster.", header=["cluster", *names], rows=rows)
