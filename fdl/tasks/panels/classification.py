"""What a person wants to see of a classifier: its data, plain and augmented, its answers, right and wrong, its maps."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator

import numpy as np

from fdl.data.splits import Splits
from fdl.tasks.panels import figures
from fdl.tasks.panels.data import augmented, class_counts, examples, pictures
from fdl.tasks.panels.feature_maps import feature_maps
from fdl.tasks.panels.planar import decision_boundary
from fdl.tasks.task import Panel, View
from fdl.types import Array, count_examples, take


def panels(view: View) -> Iterator[Panel]:
    """The panels, each drawn when it is asked for.

    A `map`, not a generator, on purpose: when one panel raises, the iterator can still be asked for the next.
    """
    result = functools.cache(lambda: Result(view))
    draws: tuple[Callable[[], Panel | None], ...] = (
        lambda: class_counts(view),
        lambda: examples(view),
        lambda: decision_boundary(view),
        lambda: augmented(view),
        lambda: confusion(result()),
        lambda: by_class(result()),
        lambda: curves_of_two(result()),
        lambda: predictions(result()),
        lambda: mistakes(result()),
        lambda: _seen_inside(view, result()),
    )
    return filter(None, map(operator.call, draws))


def softmax(logits: Array | np.ndarray) -> np.ndarray:
    """Probabilities [N, C] on the host, in double precision; of a single logit [N, 1] those of both classes [N, 2]."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def class_names(splits: Splits, count: int) -> tuple[str, ...]:
    """The name of each of `count` classes: its number where the data set has no names."""
    return tuple(splits.classes) if len(splits.classes) == count else tuple(str(i) for i in range(count))


class Result:
    """The model's answers over the test split (classes: names, truth [N], probabilities [N, C], predicted [N])."""

    def __init__(self, view: View):
        self.test = view.splits.evaluated
        self.truth = np.asarray(self.test["targets"])
        self.probabilities = softmax(view.outputs(self.test))
        self.predicted = self.probabilities.argmax(-1)
        self.classes = class_names(view.splits, self.probabilities.shape[1])


def confusion(result: Result) -> Panel:
    """Counts [true, predicted], coloured by the share of the true class."""
    count = len(result.classes)
    matrix = np.bincount(result.truth * count + result.predicted, minlength=count * count).reshape(count, count)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    few = count <= 20
    figure, axes = figures.new(7.2 if few else 8.4)
    ax = axes[0, 0]
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, shrink=0.6, label="share of the true class")
    if count <= figures.MOST_CLASSES:
        names = [figures.label(name, 14) for name in result.classes]
        ax.set_xticks(range(count), names, rotation=45, ha="right", fontsize=8)
        ax.set_yticks(range(count), names, fontsize=8)
    if few:
        for i, j in np.argwhere(matrix > 0):
            ax.text(
                j,
                i,
                f"{matrix[i, j]:,}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if share[i, j] > 0.5 else "black",
            )
    figures.titled(ax, "", "predicted", "true", grid=False)
    off = matrix - np.diag(np.diag(matrix))
    i, j = np.unravel_index(off.argmax(), off.shape)
    worst = (
        f"The commonest mistake: {result.classes[i]} taken for {result.classes[j]}, {off[i, j]:,} times."
        if off.any()
        else ""
    )
    return Panel(
        "Confusion matrix", f"{np.trace(matrix):,} of {matrix.sum():,} test examples are right. {worst}", figure
    )


def by_class(result: Result) -> Panel:
    """Precision, recall, F1 and support of each class and their plain mean."""
    from sklearn.metrics import precision_recall_fscore_support

    values = precision_recall_fscore_support(
        result.truth, result.predicted, labels=range(len(result.classes)), zero_division=0
    )
    rows = [
        (name, *(f"{v:.3f}" for v in row[:3]), f"{row[3]:,}")
        for name, row in zip(result.classes, zip(*values, strict=True), strict=True)
    ]
    means = [f"{np.mean(column):.3f}" for column in values[:3]]
    rows.append(("mean of classes", *means, f"{len(result.truth):,}"))
    return Panel(
        "Precision and recall by class",
        "Precision: of those called so, the share that are. Recall: of those that are, the share called so.",
        header=("class", "precision", "recall", "F1", "support"),
        rows=rows,
    )


def curves_of_two(result: Result) -> Panel | None:
    """ROC and precision-recall curves, of two classes alone."""
    if len(result.classes) != 2 or len(np.unique(result.truth)) != 2:
        return None
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    scores = result.probabilities[:, 1]
    figure, axes = figures.new(4.2, columns=2)
    fpr, tpr, _ = roc_curve(result.truth, scores)
    axes[0, 0].plot(fpr, tpr, color=figures.BLUE)
    axes[0, 0].plot([0, 1], [0, 1], color=figures.GREY, linestyle=":")
    area = roc_auc_score(result.truth, scores)
    figures.titled(axes[0, 0], f"ROC, area {area:.4f}", "false positive rate", "true positive rate")
    precision, recall, _ = precision_recall_curve(result.truth, scores)
    axes[0, 1].step(recall, precision, color=figures.ORANGE, where="post")
    mean = average_precision_score(result.truth, scores)
    figures.titled(axes[0, 1], f"Precision and recall, average precision {mean:.4f}", "recall", "precision")
    return Panel("Choosing a threshold", f"Positive is {result.classes[1]}.", figure)


def predictions(result: Result, count: int = 12) -> Panel | None:
    """The first test images with the class chosen, blue if right and red if wrong, and all probabilities."""
    picks = np.arange(min(count, count_examples(result.test)))
    return _gallery(
        result,
        picks,
        "Predictions",
        "The first test images. The class chosen is blue where right, red where wrong (the true one then in brackets).",
        bars=True,
    )


def mistakes(result: Result, count: int = 24) -> Panel | None:
    """The wrong answers of which the model was surest."""
    wrong = np.flatnonzero(result.predicted != result.truth)
    if not len(wrong):
        return Panel("Worst mistakes", "None: every test example is right.")
    sure = result.probabilities.max(-1)[wrong]
    caption = (
        f"Of {len(wrong):,} wrong answers, those of which the model was surest: what it said (red), the truth below."
    )
    return _gallery(result, wrong[np.argsort(-sure, kind="stable")][:count], "Worst mistakes", caption, bars=False)


def _gallery(result: Result, picks: np.ndarray, title: str, caption: str, bars: bool) -> Panel | None:
    images = pictures(take(result.test, picks))
    if images is None:
        return None
    titles, notes, charts = [], [], []
    for i in picks:
        said, true = int(result.predicted[i]), int(result.truth[i])
        colour = figures.BLUE if said == true else figures.RED
        titles.append((figures.label(result.classes[said], 16), colour))
        name = figures.label(result.classes[true], 16)
        sure = f"{result.probabilities[i, said]:.0%}"
        notes.append((sure if said == true else f"{sure}  ({name})") if bars else f"{name}  {sure}")
        charts.append((result.classes, result.probabilities[i], {true: figures.BLUE, said: colour}))
    return Panel(title, caption, figures.gallery(images, titles, notes, 4 if bars else 8, charts if bars else ()))


def _seen_inside(view: View, result: Result) -> Panel | None:
    right = np.flatnonzero(result.predicted == result.truth)
    number = int(result.truth[right[0] if len(right) else 0])
    picks = np.flatnonzero(result.truth == number)[:3]
    return feature_maps(view, take(result.test, picks), result.classes[number])
