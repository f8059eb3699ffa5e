"""Boxes (left, top, right, bottom): overlap, losses, which cell of a map answers for which box, non-maximum suppression.

Legend: B batch, N cells of a map, M true boxes, K classes, D detections.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fdl.data.box_ops import area
from fdl.types import Array


def overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Compute intersection over union of boxes [..., 4], and the area of the union; 0 where both boxes are empty."""
    corners = jnp.concatenate([jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])], -1)
    both = area(corners)
    union = area(a) + area(b) - both
    return both / jnp.maximum(union, 1e-9), union


def giou_loss(a: Array, b: Array) -> Array:
    """Compute 1 - (IoU - share of the smallest box around both that neither covers), between 0 and 2 (Rezatofighi et al. 2019,
    https://arxiv.org/abs/1902.09630), of boxes [..., 4]."""
    iou, union = overlap(a, b)
    around = area(jnp.concatenate([jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])], -1))
    return 1 - iou + (around - union) / jnp.maximum(around, 1e-9)


def focal_loss(logits: Array, targets: Array, alpha: float = 0.25, gamma: float = 2.0) -> Array:
    """Compute the binary focal loss, elementwise: -a (1 - p)^gamma log p, p the probability of the truth (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002, equation 5); a is `alpha` for targets of 1 and 1 - alpha for 0."""
    signed = jnp.where(targets > 0, logits, -logits)
    log_p = jax.nn.log_sigmoid(signed)
    weight = jnp.where(targets > 0, alpha, 1 - alpha)
    return -weight * jax.nn.sigmoid(-signed) ** gamma * log_p


def cell_centres(height: int, width: int, stride: int) -> Array:
    """Return the centres (x, y) of the cells of a map [height, width], in pixels of the picture, [N, 2]."""
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    return (jnp.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride


def assign(centres: Array, boxes: Array, classes: Array, radius: float) -> tuple[Array, Array]:
    """Say which box each cell answers for: the smallest of those that it lies in, near their centres (Tian et al. 2019,
    https://arxiv.org/abs/1904.01355, with the centre sampling of its later version).

    Args:
        centres: [N, 2].
        boxes, classes: [B, M, 4], [B, M]; a class of -1 is no box.
        radius: how far from a box's centre, along each axis, a cell's may be, in pixels.

    Returns:
        (boxes [B, N, 4], classes [B, N], -1 where a cell answers for none).
    """
    x, y = centres[None, :, None, 0], centres[None, :, None, 1]
    left, top, right, bottom = (boxes[:, None, :, side] for side in range(4))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    near = (jnp.abs(x - (left + right) / 2) < radius) & (jnp.abs(y - (top + bottom) / 2) < radius)
    size = jnp.where(inside & near & (classes[:, None] >= 0), area(boxes)[:, None], jnp.inf)  # [B, N, M]
    chosen = size.argmin(-1)
    own = jnp.take_along_axis(boxes, chosen[..., None], 1)
    label = jnp.where(jnp.isfinite(size.min(-1)), jnp.take_along_axis(classes, chosen, 1), -1)
    return own, label


def suppress(boxes: Array, scores: Array, limit: float) -> Array:
    """Say which of D boxes [D, 4] remain, bool [D]: greedily, in the order of their scores [D], which must fall, each that no box
    kept before overlaps by more than `limit`."""
    overlaps = overlap(boxes[:, None], boxes[None])[0] > limit
    places = jnp.arange(len(boxes))

    def visit(place: Array, kept: Array) -> Array:
        hidden = (overlaps[place] & kept & (places < place)).any()
        return kept.at[place].set(~hidden & (scores[place] > 0))

    return jax.lax.fori_loop(0, len(boxes), visit, jnp.zeros(len(boxes), bool))


def detections(boxes: Array, scores: Array, limit: float, count: int) -> dict[str, Array]:
    """Reduce what every cell says to the best boxes of each picture, classes suppressed apart.

    Args:
        boxes: [B, N, 4].
        scores: [B, N, K].
        limit: see `suppress`.
        count: D, of boxes that remain; four times as many are looked at.

    Returns:
        {"boxes": [B, D, 4], "scores": [B, D], "classes": int32 [B, D]}, in falling order; a score of 0 is no detection.
    """
    kinds = scores.shape[-1]

    def one(boxes: Array, scores: Array) -> dict[str, Array]:
        flat = scores.reshape(-1)
        best, places = jax.lax.top_k(flat, min(4 * count, len(flat)))
        held, classes = boxes[places // kinds], (places % kinds).astype(jnp.int32)
        # Boxes of different classes are moved apart, so that they do not overlap.
        apart = held + (classes.astype(held.dtype) * 2 * (jnp.abs(boxes).max() + 1))[:, None]
        kept = jnp.where(suppress(apart, best, limit), best, 0)
        final, order = jax.lax.top_k(kept, min(count, len(kept)))
        return {"boxes": held[order], "scores": final, "classes": classes[order]}

    return jax.vmap(one)(boxes, scores)
