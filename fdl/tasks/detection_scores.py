"""The average precision of detections, by COCO's rules, and a detector of blobs to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fdl.data.splits import Splits
from fdl.types import Arrays, Metrics, UserError

_SMALLEST = 12
"""Pixels of a blob, at least."""
_Blob = tuple[float, int, Sequence[float]]
"""Score, class, box."""


def average_precision(targets: Arrays, found: Arrays, classes: Sequence[str]) -> Metrics:
    """Compute COCO's "map_50", "map", and "ap_50_CLASS" for each class that any box has; 100 detections of a picture count.

    Args:
        targets: {"boxes": [N, M, 4], "classes": [N, M], -1 where there is none}.
        found: {"boxes": [N, D, 4], "scores", "classes": [N, D]}; a score of 0 is no detection.

    Raises:
        UserError: the library that counts is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError("average precision needs faster-coco-eval: pip install 'fdl[detection]'") from error
    dataset, results = dataset_of(targets, classes), results_of(found)
    if not results or not dataset["annotations"]:
        return {"map_50": 0.0, "map": 0.0}
    truth = COCO(dataset)
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=_silently)
    evaluation.evaluate()
    evaluation.accumulate()
    return summary_of(evaluation.eval["precision"], classes)


def _silently(*said: Any) -> None:
    return None


def summary_of(precision: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Average COCO's precisions [IoU, recall, class, size of area, detections], -1 where a class has no box."""
    held = precision[:, :, :, 0, -1]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else 0.0

    each = {
        f"ap_50_{name}": mean(held[0, :, number])
        for number, name in enumerate(classes)
        if (held[0, :, number] > -1).any()
    }
    return {"map_50": mean(held[0]), "map": mean(held), **each}


def dataset_of(targets: Arrays, classes: Sequence[str]) -> dict[str, Any]:
    """Return true boxes as the content of a COCO file."""
    rows, slots = np.nonzero(targets["classes"] >= 0)
    annotations = []
    for identity, (row, slot) in enumerate(zip(rows, slots, strict=True), 1):
        left, top, right, bottom = map(float, targets["boxes"][row, slot])
        annotations.append({
            "id": identity, "image_id": int(row), "category_id": int(targets["classes"][row, slot]), "iscrowd": 0,
            "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
        })  # fmt: skip
    return {
        "info": {}, "images": [{"id": row} for row in range(len(targets["classes"]))], "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
    }  # fmt: skip


def results_of(found: Arrays) -> list[dict[str, Any]]:
    """Return detections as the content of a COCO file of results."""
    results = []
    for row, slot in zip(*np.nonzero(found["scores"] > 0), strict=True):
        left, top, right, bottom = map(float, found["boxes"][row, slot])
        results.append({
            "image_id": int(row), "category_id": int(found["classes"][row, slot]), "score": float(found["scores"][row, slot]),
            "bbox": [left, top, right - left, bottom - top],
        })  # fmt: skip
    return results


def blob_baseline(splits: Splits) -> dict[str, np.ndarray]:
    """Detect connected regions that differ from the median picture's brightness by more than Otsu's threshold.

    A region's class is the one whose training boxes are nearest in the logarithm of their area; the larger, the surer.
    """
    from scipy import ndimage

    train, rows = splits.train["targets"], splits.evaluated
    known = train["classes"] >= 0
    sides = (train["boxes"][..., 2:] - train["boxes"][..., :2])[known]
    sizes = np.log(np.maximum(sides.prod(-1), 1))
    middle = {number: sizes[train["classes"][known] == number].mean() for number in np.unique(train["classes"][known])}
    found: list[list[_Blob]] = []
    for picture in np.asarray(rows["inputs"]):
        grey = np.asarray(picture, np.float64).mean(-1)
        contrast = np.abs(grey - np.median(grey))
        regions, _ = ndimage.label(ndimage.binary_fill_holes(contrast > otsu(contrast)))
        own: list[_Blob] = []
        for region in ndimage.find_objects(regions):
            height, width = (part.stop - part.start for part in region)
            if height * width >= _SMALLEST:
                label = min(middle, key=lambda number: abs(np.log(height * width) - middle[number]))
                own.append((height * width / grey.size, int(label),
                            (region[1].start, region[0].start, region[1].stop, region[0].stop)))  # fmt: skip
        found.append(sorted(own, reverse=True)[:100])
    return _padded(found)


def _padded(found: Sequence[Sequence[_Blob]]) -> dict[str, np.ndarray]:
    most = max(1, *map(len, found))
    made: Mapping[str, np.ndarray] = {
        "boxes": np.zeros((len(found), most, 4)), "scores": np.zeros((len(found), most)),
        "classes": np.zeros((len(found), most), int),
    }  # fmt: skip
    for row, own in enumerate(found):
        for slot, (score, label, box) in enumerate(own):
            made["boxes"][row, slot], made["scores"][row, slot], made["classes"][row, slot] = box, score, label
    return dict(made)


def otsu(values: np.ndarray) -> float:
    """Return the threshold that divides values into two groups of the largest variance between them (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    middles, below = (edges[:-1] + edges[1:]) / 2, np.cumsum(counts)
    total, sums = below[-1], np.cumsum(counts * middles)
    above = total - below
    between = np.where(
        (below > 0) & (above > 0), (sums[-1] * below / total - sums) ** 2 / np.maximum(below * above, 1), 0
    )
    return float(middles[between.argmax()])
