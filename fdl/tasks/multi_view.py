"""Classification that looks at several views of each picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fdl.tasks.classification import Classification
from fdl.types import Array, Batch, Whole


@dataclasses.dataclass(frozen=True)
class MultiView(Classification):
    """Classification whose logits, in evaluation and prediction, are averaged over views of each picture.

    The picture weighs as much as its two moved copies together; with `mirrored` each is looked at both ways, six views in
    all (Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.5). Training sees one view, the one that augmentation made.

    Attributes:
        mirrored: also look at each view mirrored left to right.
        shift: the copies are moved by so many pixels, up and left and down and right, with the border repeated; 0: none.
    """

    mirrored: bool = True
    shift: Whole = 1

    def apply(self, model: nn.Module, variables: Mapping[str, Any], batch: Batch, **settings: Any) -> Any:
        """Call the model on the batch, or on each view [B, H, W, C] of it where not training: logits [B, C]."""
        if settings.get("train"):
            return super().apply(model, variables, batch, **settings)

        def logits(view: Array) -> Any:
            return model.apply(variables, view, **settings)

        views = views_of(batch["inputs"], self.mirrored, self.shift)
        return sum(weight * logits(view) for view, weight in views)  # one after the other: the memory of one view


def views_of(x: Array, mirrored: bool, shift: int) -> list[tuple[Array, float]]:
    """List the views of pictures [B, H, W, C], each with its weight; the weights sum to 1."""
    views = [(x, 1.0)]
    if shift:
        padded = jnp.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
        height, width = x.shape[1:3]
        first, last = padded[:, :height, :width], padded[:, 2 * shift :, 2 * shift :]
        views = [(x, 0.5), (first, 0.25), (last, 0.25)]
    if mirrored:
        views = [(each, weight / 2) for view, weight in views for each in (view, view[:, :, ::-1])]
    return views
