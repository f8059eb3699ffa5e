"""What a person wants to see of a classifier: its data, plain and augmented, its answers, right and wrong, its maps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fdl.tasks.panels import figures
from fdl.tasks.panels.answers import FIRST, Answers, class_names, collect_answers, softmax
from fdl.tasks.panels.data import augmentations, augmented, class_counts, examples, pictures
from fdl.tasks.panels.feature_maps import feature_maps
from fdl.tasks.panels.planar import decision_boundary
from fdl.tasks.panels.seen_inside import feature_plane, first_filters, grad_cam
from fdl.tasks.task import DrawPanel, Panel, View
from fdl.types import count_examples, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["class_names", "data_panels", "panels", "softmax"]


def data_panels(view: View) -> list[DrawPanel]:
    """List the panels that need no trained model."""
    return [
        lambda: class_counts(view),
        lambda: examples(view),
        lambda: augmentations(view),
        lambda: augmented(view),
    ]


def panels(view: View) -> list[DrawPanel]:
    """List the panels; the model is asked when the first one that needs its answers is drawn."""
    about_data: list[DrawPanel] = [*data_panels(view), lambda: decision_boundary(view)]
    if view.splits.test is None:
        return about_data
    answers = functools.cache(lambda: collect_answers(view))
    return [
        *about_data,
        lambda: confusion(answers()),
        lambda: by_class(answers()),
        lambda: curves_of_two(answers()),
        lambda: predictions(answers()),
        lambda: mistakes(answers()),
        lambda: grad_cam(view, answers()),
        lambda: feature_plane(view, answers()),
        lambda: first_filters(view),
        lambda: _seen_inside(view, answers()),
    ]


def confusion(answers: Answers) -> Panel:
    """Draw counts [true, predicted], coloured by the share of the true class; of many classes, the most confused."""
    right = answers.truth == answers.predicted
    count = len(answers.classes)
    # Pairs that occur, not a table of all: that would be [C, C].
    wrong = answers.truth[~right].astype(np.int64) * count + answers.predicted[~right]
    pairs, times = np.unique(wrong, return_counts=True)
    shown = np.arange(count) if count <= figures.MOST_CLASSES else _most_confused(pairs, times, count)
    matrix, share = _matrix(answers, shown)
    some = f"The {len(shown)} of {count:,} classes in most mistakes. " if len(shown) < count else ""
    worst = ""
    if len(pairs):
        true, said = divmod(int(pairs[times.argmax()]), count)
        worst = (
            f"The commonest mistake: {answers.classes[true]} taken for {answers.classes[said]}, {times.max():,} times."
        )
    caption = f"{right.sum():,} of {len(right):,} test examples are right. {some}{worst}"
    return Panel("Confusion matrix", caption, _draw_matrix(matrix, share, [answers.classes[i] for i in shown]))


def _most_confused(pairs: np.ndarray, times: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers, in order, of the MOST_CLASSES classes that most mistakes confuse with another."""
    involved = np.bincount(pairs // count, times, count) + np.bincount(pairs % count, times, count)
    return np.sort(np.argsort(-involved, kind="stable")[: figures.MOST_CLASSES])


def _matrix(answers: Answers, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts [K, K] of the classes shown, and each as a share of all examples of its true class."""
    count, size = len(answers.classes), len(shown)
    place = np.full(count, -1)
    place[shown] = np.arange(size)
    true, said = place[answers.truth], place[answers.predicted]
    both = (true >= 0) & (said >= 0)
    matrix = np.bincount(true[both] * size + said[both], minlength=size * size).reshape(size, size)
    support = np.bincount(answers.truth, minlength=count)[shown]
    return matrix, matrix / np.maximum(support, 1)[:, None]


def _draw_matrix(matrix: np.ndarray, share: np.ndarray, classes: Sequence[str]) -> Figure:
    few = len(classes) <= 20
    figure, axes = figures.new(7.2 if few else 8.4)
    ax = axes[0, 0]
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, shrink=0.6, label="share of the true class")
    names = [figures.label(name, 14) for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for i, j in np.argwhere(matrix > 0) if few else ():
        colour = "white" if share[i, j] > 0.5 else "black"
        ax.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", fontsize=7, color=colour)
    figures.titled(ax, "", "predicted", "true", grid=False)
    return figure


def by_class(answers: Answers) -> Panel:
    """Tabulate precision, recall, F1 and support of each class and their plain mean."""
    from sklearn.metrics import precision_recall_fscore_support

    values = precision_recall_fscore_support(
        answers.truth, answers.predicted, labels=range(len(answers.classes)), zero_division=0
    )
    rows = [
        (name, *(f"{v:.3f}" for v in row[:3]), f"{row[3]:,}")
        for name, row in zip(answers.classes, zip(*values, strict=True), strict=True)
    ]
    means = [f"{np.mean(column):.3f}" for column in values[:3]]
    rows.append(("mean of classes", *means, f"{len(answers.truth):,}"))
    return Panel(
        "Precision and recall by class",
        "Precision: of those called so, the share that are. Recall: of those that are, the share called so.",
        header=("class", "precision", "recall", "F1", "support"),
        rows=rows,
    )


def curves_of_two(answers: Answers) -> Panel | None:
    """Draw ROC and precision-recall curves, of two classes alone."""
    if len(answers.classes) != 2 or len(np.unique(answers.truth)) != 2:
        return None
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    scores = answers.second
    figure, axes = figures.new(4.2, columns=2)
    fpr, tpr, _ = roc_curve(answers.truth, scores)
    axes[0, 0].plot(fpr, tpr, color=figures.BLUE)
    axes[0, 0].plot([0, 1], [0, 1], color=figures.GREY, linestyle=":")
    area = roc_auc_score(answers.truth, scores)
    figures.titled(axes[0, 0], f"ROC, area {area:.4f}", "false positive rate", "true positive rate")
    precision, recall, _ = precision_recall_curve(answers.truth, scores)
    axes[0, 1].step(recall, precision, color=figures.ORANGE, where="post")
    mean = average_precision_score(answers.truth, scores)
    figures.titled(axes[0, 1], f"Precision and recall, average precision {mean:.4f}", "recall", "precision")
    return Panel("Choosing a threshold", f"Positive is {answers.classes[1]}.", figure)


def predictions(answers: Answers) -> Panel | None:
    """Draw the first test images with the class chosen, blue if right and red if wrong, and all probabilities."""
    return _gallery(
        answers,
        np.arange(min(FIRST, count_examples(answers.test))),
        "Predictions",
        "The first test images. The class chosen is blue where right, red where wrong (the true one then in brackets).",
        bars=True,
    )


def mistakes(answers: Answers, count: int = 24) -> Panel | None:
    """Draw the wrong answers with the highest confidence."""
    wrong = np.flatnonzero(answers.predicted != answers.truth)
    if not len(wrong):
        return Panel("Worst mistakes", "None: every test example is right.")
    caption = (
        f"Of {len(wrong):,} wrong answers, those of which the model was surest: what it said (red), the truth below."
    )
    surest = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:count]
    return _gallery(answers, surest, "Worst mistakes", caption, bars=False)


def _gallery(answers: Answers, picks: np.ndarray, title: str, caption: str, bars: bool) -> Panel | None:
    """Draw examples with the answers under them; with `bars`, their probabilities, which the first examples alone have."""
    images = pictures(take(answers.test, picks))
    if images is None:
        return None
    titles, notes, charts = [], [], []
    for i in picks:
        said, true = int(answers.predicted[i]), int(answers.truth[i])
        colour = figures.BLUE if said == true else figures.RED
        titles.append((figures.label(answers.classes[said], 16), colour))
        name = figures.label(answers.classes[true], 16)
        sure = f"{answers.confidence[i]:.0%}"
        notes.append((sure if said == true else f"{sure}  ({name})") if bars else f"{name}  {sure}")
        if bars:
            charts.append((answers.classes, answers.first[i], {true: figures.BLUE, said: colour}))
    return Panel(title, caption, figures.gallery(images, titles, notes, 4 if bars else 8, charts))


def _seen_inside(view: View, answers: Answers) -> Panel | None:
    right = np.flatnonzero(answers.predicted == answers.truth)
    number = int(answers.truth[right[0] if len(right) else 0])
    picks = np.flatnonzero(answers.truth == number)[:3]
    return feature_maps(view, take(answers.test, picks), answers.classes[number])
