"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.formats.masks import VOID
from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks import losses
from fdl.tasks.panels import segmentation as drawing
from fdl.tasks.panels.answers import class_names
from fdl.tasks.picture_inputs import PICTURED, read_pictures, shown_name, spec_of
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View, output_width
from fdl.types import Array, Batch, Fact, Metrics, UserError


@dataclasses.dataclass(frozen=True)
class Segmentation(Task):
    """Softmax cross-entropy of logits [B, H, W, K] by pixel; targets are class numbers [B, H, W], `VOID` where none counts.

    The loss is weighted by the batch's "pixel_weights" (`fdl.data.scenes.PixelWeights`), where there are any. "mean_iou" is the
    mean over classes of intersection over union, each counted over all pixels of a split.

    Attributes:
        classes: their names; (): the data set's.
    """

    classes: Annotated[tuple[str, ...], Fact("classes")] = ()

    monitor: ClassVar[str] = "mean_iou"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "mean_iou": MetricStyle(percent=True, better="max"),
        "pixel_accuracy": MetricStyle(percent=True, better="max"),
        "loss": MetricStyle("nats", better="min"),
    }

    def score(self, outputs: Array, batch: Batch) -> dict[str, losses.Score]:
        """Compute the loss and the accuracy of pixels, [B, H, W], and in evaluation "iou_CLASS" of each class.

        Of those a pixel in the intersection is 1 and one in the union weighs 1, so that the weighted mean over any number of
        batches is intersection over union.
        """
        targets = batch["targets"].astype(jnp.int32)
        known = targets != VOID
        labels, predicted = jnp.where(known, targets, 0), outputs.argmax(-1)
        weights = batch.get("pixel_weights", jnp.ones(targets.shape)) * known
        scores: dict[str, losses.Score] = {
            "loss": (losses.cross_entropy(outputs, labels), weights),
            "pixel_accuracy": ((predicted == labels).astype(jnp.float32), known),
        }
        if "step" in batch:
            return scores
        for number, name in enumerate(self.classes):
            true, said = labels == number, predicted == number
            scores[f"iou_{name}"] = ((true & said).astype(jnp.float32), (true | said) & known)
        return scores

    def finish(self, means: Metrics) -> Metrics:
        """Add "mean_iou", over the classes that any pixel has or is given."""
        shares = [value for name, value in means.items() if name.startswith("iou_") and not math.isnan(value)]
        return {**means, "mean_iou": math.fsum(shares) / len(shares)} if shares else dict(means)

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> Array:
        """Compute the likeliest class of each pixel, uint8 [B, H, W]."""
        return self.apply(model, variables, batch, train=False, rngs=rngs).argmax(-1).astype(jnp.uint8)

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse targets that are not label pictures of the outputs' size, or have numbers that no output stands for."""
        shape, count = outputs.shape[1:3], output_width(outputs) or 0
        for name, rows in (("training", splits.train), ("validation", splits.validation), ("test", splits.test)):
            if rows is None:
                continue
            targets = rows["targets"]
            if targets.shape[1:] != shape:
                raise UserError(
                    f"the labels of the {name} split are {list(targets.shape[1:])}, the model's {list(shape)}"
                )
            most = int(targets[targets != VOID].max(initial=0))
            if most >= count:
                raise UserError(
                    f"the labels of the {name} split go to {most}, and the model has {count} outputs; leave model.outputs out"
                )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score the commonest class of all training pixels, and the commonest of those at the same place."""
        train, test = splits.train["targets"], splits.evaluated["targets"]
        counts = np.stack([(train == number).sum(0) for number in range(len(splits.classes))])
        everywhere = np.full(test.shape, counts.sum((1, 2)).argmax())
        by_place = np.broadcast_to(counts.argmax(0), test.shape)
        return {
            "majority class": iou_of(test, everywhere, splits.classes),
            "by position": iou_of(test, by_place, splits.classes),
        }

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [lambda: drawing.overlays(view), lambda: drawing.table(view)]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv (each class's share of a picture), predictions.png, and NAME.labels.png of class numbers.

        Pictures are scaled to the size of the training pictures; label pictures have that size, and the report's colours.
        """
        names = class_names(view.splits, len(self.classes))
        table = [["file", *names]]
        files: dict[str, bytes | str] = {}
        drawn: list[np.ndarray] = []
        for chunk in read_pictures(source, spec_of(view.splits)):
            if not chunk.names:
                continue
            labels = view.outputs({"inputs": chunk.rows}).argmax(-1).astype(np.uint8)
            for name, picture, held in zip(chunk.names, chunk.rows, labels, strict=True):
                shown = shown_name(name)
                shares = np.bincount(held.ravel(), minlength=len(names)) / held.size
                table.append([shown, *(f"{share:.6f}" for share in shares)])
                files[f"{shown.replace('/', '_')}.labels.png"] = drawing.label_png(held)
                if len(drawn) < PICTURED:
                    drawn.append(drawing.overlay(picture, held))
        files |= {"predictions.csv": to_csv(table), "predictions.png": drawing.sheet_png(drawn, names)}
        return write_all(out, files)


def iou_of(targets: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Return "mean_iou" and "pixel_accuracy" of class numbers against others of the same shape, void pixels left out."""
    known = targets != VOID
    shares = []
    for number in range(len(classes)):
        true, said = (targets == number) & known, (predicted == number) & known
        union = int((true | said).sum())
        shares += [int((true & said).sum()) / union] if union else []
    return {"mean_iou": float(np.mean(shares)), "pixel_accuracy": float((targets == predicted)[known].mean())}
