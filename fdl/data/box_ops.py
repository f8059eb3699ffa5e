"""Ops for pictures with boxes: both change together.

Legend: B batch, H height, W width, C channels, M boxes of a picture (class -1 where there is none).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fdl.data.pictures import per_image, pictures, whole
from fdl.data.splits import Op, Statistics
from fdl.types import Array, Batch, Draw, Fraction, Probability


@dataclasses.dataclass(frozen=True)
class FlipBoxes(Op):
    """Images [B, H, W, C] with their boxes mirrored left to right, and upside down, each with its own probability."""

    horizontal: Probability = 0.5
    vertical: Probability = 0.0

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x, targets = pictures(batch["inputs"], self), batch["targets"]
        boxes, uniform = jnp.asarray(targets["boxes"]), draw((2,))
        for axis, probability in ((2, self.horizontal), (1, self.vertical)):
            hit = uniform[:, 2 - axis] < probability
            x = jnp.where(per_image(hit), jnp.flip(x, axis), x)
            low, high = (0, 2) if axis == 2 else (1, 3)
            size = x.shape[axis]
            mirrored = boxes.at[..., low].set(size - boxes[..., high]).at[..., high].set(size - boxes[..., low])
            boxes = jnp.where(hit[:, None, None], mirrored, boxes)
        return {**batch, "inputs": x, "targets": {**targets, "boxes": boxes}}


@dataclasses.dataclass(frozen=True)
class Mosaic(Op):
    """A window on four pictures of the batch, two beside two (after Bochkovskiy et al. 2020, https://arxiv.org/abs/2004.10934).

    The window has the size of a picture and any place, so that it shows a part of each; nothing is scaled. The three others are
    the next ones of the batch, so a picture needs three neighbours on its device. A box is cut where its picture is, and left
    out where less than `visible` of its area remains. Targets have 4 M boxes afterwards.

    Attributes:
        probability: of a mosaic; otherwise a picture stays whole.
        visible: the least share of a box's area.
    """

    probability: Probability = 0.5
    visible: Fraction = 0.3

    def transform(self, batch: Batch, draw: Draw | None, statistics: Statistics) -> Batch:
        if draw is None:
            return batch
        x, targets = pictures(batch["inputs"], self), batch["targets"]
        _, height, width, channels = x.shape
        four = [jnp.roll(x, -place, 0) for place in range(4)]
        canvas = jnp.concatenate([jnp.concatenate(four[:2], 2), jnp.concatenate(four[2:], 2)], 1)
        uniform = draw((3,))
        alone = uniform[:, 0] >= self.probability
        top, left = (
            jnp.where(alone, 0, whole(uniform[:, 1 + axis], size + 1)) for axis, size in enumerate((height, width))
        )

        def window(picture: Array, top: Array, left: Array) -> Array:
            return jax.lax.dynamic_slice(picture, (top, left, 0), (height, width, channels))

        boxes, classes = self._boxes(targets, height, width, top, left)
        return {
            **batch,
            "inputs": jax.vmap(window)(canvas, top, left),
            "targets": {**targets, "boxes": boxes, "classes": classes},
        }

    def _boxes(self, targets: Batch, height: int, width: int, top: Array, left: Array) -> tuple[Array, Array]:
        """Return the boxes [B, 4 M, 4] and classes [B, 4 M] that the windows show."""
        shifts = [(0, 0), (width, 0), (0, height), (width, height)]
        moved = [
            jnp.roll(targets["boxes"], -place, 0) + jnp.array([*shift, *shift], jnp.float32)[None, None]
            for place, shift in enumerate(shifts)
        ]
        classes = jnp.concatenate([jnp.roll(targets["classes"], -place, 0) for place in range(4)], 1)
        boxes = jnp.concatenate(moved, 1) - jnp.stack([left, top, left, top], -1).astype(jnp.float32)[:, None]
        limits = jnp.array([width, height, width, height], jnp.float32)[None, None]
        clipped = jnp.clip(boxes, 0, limits)
        shown = area(clipped) >= self.visible * area(boxes)
        kept = (classes >= 0) & shown & (area(clipped) > 0)
        return jnp.where(kept[..., None], clipped, 0), jnp.where(kept, classes, -1)


def area(boxes: Array) -> Array:
    """Compute the area of boxes [..., 4], [...]."""
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0) * jnp.maximum(boxes[..., 3] - boxes[..., 1], 0)
