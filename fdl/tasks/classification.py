"""One class out of C."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fdl.data.columns import Encoded, of_files
from fdl.data.formats.images import border, find_images, read
from fdl.data.splits import Splits
from fdl.files import write_all
from fdl.tasks import losses
from fdl.tasks.panels import classification, figures
from fdl.tasks.panels.classification import class_names, softmax
from fdl.tasks.task import Better, MetricStyle, Panel, Task, View, output_width
from fdl.types import Array, Arrays, Batch, Count, Metrics, Probability, UserError, take

PICTURED = 40
"""How many of the predictions are drawn; the table has all."""


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Softmax cross-entropy over logits [B, C]; targets are class numbers [B], or probabilities [B, C] (mixed labels).

    A single output [B, 1] is the logit of the second of two classes: its sigmoid, and binary cross-entropy.

    Attributes:
        label_smoothing: the share of each label spread evenly over all classes (Szegedy et al. 2016, section 7).
        top: classes named in each row of predictions.csv, likeliest first.
    """

    label_smoothing: Probability = 0.0
    top: Count = 5

    monitor: ClassVar[str] = "accuracy"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats", better="min"),
        "cross_entropy": MetricStyle("nats", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, Array]:
        """The loss [B] (nats, against smoothed labels) and accuracy [B] (0 or 1; mixed labels count by their largest).

        Where labels are smoothed, "cross_entropy" [B] is the loss without it: the figure to compare with other runs.
        """
        outputs, targets = losses.two_logits(outputs), batch["targets"]
        scores = {
            "loss": losses.cross_entropy(outputs, targets, self.label_smoothing),
            "accuracy": losses.accuracy(outputs, targets),
        }
        if self.label_smoothing:
            scores["cross_entropy"] = losses.cross_entropy(outputs, targets)
        return scores

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse labels that are no output's number: they would cost nothing, and train to a fine loss."""
        width = output_width(outputs)
        if width is None:
            return
        classes = 2 if width == 1 else width
        for name, rows in (("training", splits.train), ("validation", splits.validation), ("test", splits.test)):
            labels = np.asarray(rows["targets"]) if rows is not None else np.zeros(0, int)
            if not labels.size or not np.issubdtype(labels.dtype, np.integer):
                continue
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= classes:
                raise UserError(
                    f"the labels of the {name} split go from {low} to {high}, and the model has {width} outputs, for labels "
                    f"0 to {classes - 1}; leave model.outputs out or set it to {high + 1}, and count labels from 0"
                )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Always the commonest class of training."""
        train, test = np.asarray(splits.train["targets"]), np.asarray(splits.evaluated["targets"])
        return {"majority class": {"accuracy": float(np.mean(test == np.bincount(train).argmax()))}}

    def panels(self, view: View) -> Iterable[Panel]:
        return classification.panels(view)

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """predictions.csv and predictions.png for an image file, or a folder searched through for images.

        Every picture is brought to the form of the training images (see `fdl.data.formats.images.read`). Where those are
        grey with a dark border (white on black), one with a bright border is inverted, and the column `inverted` says so.
        """
        files = find_images(source)
        raw, inverted = _as_trained([path for _, path in files], view.splits.train)
        probabilities = softmax(view.outputs({"inputs": raw}))
        classes = class_names(view.splits, probabilities.shape[1])
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        ranks = range(1, best.shape[1] + 1)
        writer.writerow(["file", "inverted", *(f"{word}_{rank}" for rank in ranks for word in ("class", "confidence"))])
        for (name, _), flipped, row, order in zip(files, inverted, probabilities, best, strict=True):
            cells = [cell for i in order for cell in (classes[i], f"{row[i]:.6f}")]
            # A file name may hold bytes that are no text: shown as \xNN rather than failing the whole table.
            printable = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            writer.writerow([printable, "yes" if flipped else "no", *cells])
        drawn = slice(PICTURED)
        figure = figures.gallery(
            raw[drawn],
            [(figures.label(classes[order[0]]), figures.BLUE) for order in best[drawn]],
            [
                f"{row[order[0]]:.0%}  {figures.label(name.encode(errors='replace').decode(errors='replace'), 20)}"
                for (name, _), row, order in zip(files[drawn], probabilities[drawn], best[drawn], strict=True)
            ],
            columns=4,
            bars=[
                (classes, row, {int(order[0]): figures.BLUE})
                for row, order in zip(probabilities[drawn], best[drawn], strict=True)
            ],
        )
        return write_all(out, {"predictions.csv": table.getvalue(), "predictions.png": figures.png(figure)})


def _as_trained(paths: list[Path], train: Arrays) -> tuple[np.ndarray, list[bool]]:
    """The pictures as rows like `train`'s inputs, and which of them were inverted."""
    if isinstance(train["inputs"], Encoded):
        return np.asarray(of_files(paths, train["inputs"].side)), [False] * len(paths)
    seen = np.asarray(take(train, slice(1000))["inputs"]) if not isinstance(train["inputs"], dict) else np.empty(0)
    if seen.ndim not in (3, 4):
        raise UserError("--mode=predict reads images, and this experiment's model is not given images")
    shape = seen.shape[1:] if seen.ndim == 4 else (*seen.shape[1:], 1)
    high = 255 if seen.dtype == np.uint8 else float(seen.max())
    dark = shape[-1] == 1 and np.median(border(seen.reshape(-1, *shape))) < high / 4
    rows, inverted = [], []
    for path in paths:
        image = read(path, shape[:2], shape[2])
        flip = bool(dark and np.median(border(image)) >= 128)
        inverted.append(flip)
        rows.append(255 - image if flip else image)
    images = np.stack(rows).reshape(-1, *seen.shape[1:])
    return (images if seen.dtype == np.uint8 else (images * (high / 255)).astype(seen.dtype)), inverted
