"""The update that computes a first layer from training pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fdl.experiment.updates import Update
from fdl.models.whitened_cnn import whitening_kernel
from fdl.tasks.task import View
from fdl.types import Count, Positive, UserError, take


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whiten(Update):
    """Set a convolution's kernel before the first step to `whitening_kernel` of some training pictures, as evaluation sees them.

    The kernel's shape decides the patch; freeze it ("whiten/kernel") or it is trained from there.

    Attributes:
        layer: the convolution's name in the model.
        examples: how many of the first training pictures are looked at.
        epsilon: added to each variance, so that directions of noise are not blown up.
    """

    layer: str = "whiten"
    examples: Count = 5000
    epsilon: Positive = 5e-4

    def compute(self, view: View) -> Mapping[str, Any]:
        held = view.variables["params"].get(self.layer, {}).get("kernel")
        if held is None:
            raise UserError(f"updates: the model has no convolution {self.layer!r} to whiten; name one that it has")
        rows = view.prepared(take(view.splits.train, slice(self.examples)))
        kernel = whitening_kernel(np.asarray(rows["inputs"]), held.shape[0], self.epsilon)
        return {f"params/{self.layer}/kernel": kernel}
