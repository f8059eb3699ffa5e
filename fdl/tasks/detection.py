"""Object detection: boxes with a class and a score, by a detector without anchors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.data.formats.boxes import out_of_frame, picture_size
from fdl.data.splits import Splits
from fdl.files import to_csv, write_all
from fdl.tasks import boxes as geometry
from fdl.tasks.detection_scores import average_precision, blob_baseline
from fdl.tasks.panels import detection as drawing
from fdl.tasks.panels.answers import class_names
from fdl.tasks.picture_inputs import PICTURED, read_pictures, shown_name, spec_of
from fdl.tasks.task import Better, DrawPanel, MetricStyle, Task, View
from fdl.types import Array, Arrays, Batch, Count, Fraction, Metrics, NonNegative, Positive, Probability, UserError


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """Focal loss of each cell's classes and 1 - GIoU of its box (`fdl.models.Detector`), for each cell that answers for one.

    Targets are those of `fdl.data.formats.boxes`. "map_50" is the mean over classes of the average precision at an
    intersection over union of 0.5, COCO's; "map" the mean over 0.5, 0.55, ... 0.95.

    Attributes:
        box_weight: of the boxes' loss.
        radius: cells within so many cells of a box's centre answer for it.
        least_score: detections below it are left out of panels and predictions.
        overlap: of two boxes of a class that overlap by more, the better one remains.
        count: detections of a picture, at most.
    """

    box_weight: NonNegative = 1.0
    radius: Positive = 1.5
    least_score: Probability = 0.3
    overlap: Fraction = 0.5
    count: Count = 100

    monitor: ClassVar[str] = "map_50"
    better: ClassVar[Better] = "max"
    styles: ClassVar[Mapping[str, MetricStyle]] = {
        "map_50": MetricStyle(percent=True, better="max"),
        "map": MetricStyle(percent=True, better="max"),
    }

    def score(self, outputs: Mapping[str, Array], batch: Batch) -> dict[str, tuple[Array, Array]]:
        """Compute the loss and its two parts as means over the cells that answer for a box.

        A picture weighs as many as it has (at least one), and its value is the sum of its losses over their number.
        """
        targets, logits = batch["targets"], outputs["logits"]
        centres = self._centres(batch["inputs"], logits)
        own, labels = geometry.assign(
            centres, targets["boxes"], targets["classes"], self.radius * self._stride(batch["inputs"], logits)
        )
        flat = logits.reshape(len(logits), -1, logits.shape[-1])
        one_hot = jax.nn.one_hot(labels, flat.shape[-1])  # no class is -1: all zeros
        classes = geometry.focal_loss(flat, one_hot).sum((1, 2))
        answers = (labels >= 0).astype(jnp.float32)
        loss = geometry.giou_loss(self._boxes(centres, outputs["reach"]), own)
        boxes = jnp.where(labels >= 0, loss, 0).sum(1)
        weight = jnp.maximum(answers.sum(1), 1)
        return {
            "loss": ((classes + self.box_weight * boxes) / weight, weight),
            "class_loss": (classes / weight, weight),
            "box_loss": (boxes / weight, weight),
        }

    def decode(
        self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, rngs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Compute `fdl.tasks.boxes.detections`: boxes [B, D, 4], scores and classes [B, D]."""
        outputs = self.apply(model, variables, batch, train=False, rngs=rngs)
        logits = outputs["logits"]
        height, width = batch["inputs"].shape[1:3]
        boxes = self._boxes(self._centres(batch["inputs"], logits), outputs["reach"])
        boxes = jnp.clip(boxes, 0, jnp.array([width, height, width, height], jnp.float32)[None, None])
        scores = jax.nn.sigmoid(logits).reshape(len(logits), -1, logits.shape[-1])
        return geometry.detections(boxes, scores, self.overlap, self.count)

    def _stride(self, inputs: Array, logits: Array) -> int:
        return -(-inputs.shape[1] // logits.shape[1])

    def _centres(self, inputs: Array, logits: Array) -> Array:
        height, width = logits.shape[1:3]
        return geometry.cell_centres(height, width, self._stride(inputs, logits))

    def _boxes(self, centres: Array, reach: Array) -> Array:
        """Return the boxes [B, N, 4] that reach so far from the cells' centres."""
        reach = reach.reshape(len(reach), -1, 4)
        both = jnp.concatenate([centres, centres], -1)[None]
        return both + reach * jnp.array([-1.0, -1.0, 1.0, 1.0])[None, None]

    def measure(self, view: View, rows: Arrays) -> Metrics:
        """Compute "map_50", "map" and each class's average precision at 0.5 over a split."""
        return average_precision(rows["targets"], view.decoded(rows), view.splits.classes)

    def check(self, outputs: Any, splits: Splits) -> None:
        """Refuse targets that are no boxes, and classes that no output stands for."""
        targets, width = splits.train["targets"], outputs["logits"].shape[-1]
        if not isinstance(targets, Mapping) or set(targets) != {"boxes", "classes"}:
            raise UserError("a detector needs boxes as targets: set data to voc:FOLDER or coco:FILE")
        most = int(targets["classes"].max())
        if most >= width:
            raise UserError(
                f"the boxes' classes go to {most}, and the model has {width} outputs; leave model.outputs out"
            )

    def baselines(self, splits: Splits) -> dict[str, Metrics]:
        """Score blobs: what is darker or stronger in colour than Otsu's threshold, called by its size."""
        return {"blobs": average_precision(splits.evaluated["targets"], blob_baseline(splits), splits.classes)}

    def panels(self, view: View) -> Sequence[DrawPanel]:
        return [
            lambda: drawing.counts(view),
            lambda: drawing.augmented(view),
            lambda: drawing.found(view, self.least_score),
        ]

    def predict(self, view: View, source: str, out: Path) -> list[Path]:
        """Write predictions.csv (a line for each box, in pixels of the user's own picture) and predictions.png."""
        table = [["file", "class", "score", "left", "top", "right", "bottom"]]
        drawn: list[tuple[np.ndarray, Arrays]] = []
        spec = spec_of(view.splits)
        names = class_names(view.splits, len(view.splits.classes))
        root = Path(source).expanduser()
        for chunk in read_pictures(source, spec):
            if not chunk.names:
                continue
            held = view.decoded({"inputs": chunk.rows})
            for row, name in enumerate(chunk.names):
                kept = held["scores"][row] >= self.least_score
                own = {key: values[row][kept] for key, values in held.items()}
                shape = picture_size(root / name if root.is_dir() else root)
                shown = shown_name(name)
                corners = out_of_frame(own["boxes"].astype(np.float64), shape, spec.shape[:2])  # type: ignore[arg-type]
                for label, score, box in zip(own["classes"], own["scores"], corners, strict=True):
                    table.append([shown, names[label], f"{score:.4f}", *(f"{value:.1f}" for value in box)])
                if len(drawn) < PICTURED:
                    drawn.append((chunk.rows[row], own))
        return write_all(out, {"predictions.csv": to_csv(table), "predictions.png": drawing.sheet_png(drawn, names)})
