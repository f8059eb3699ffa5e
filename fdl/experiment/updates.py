"""Updates between steps: arrays of the state that something other than the gradient determines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fdl.tasks.task import View
from fdl.types import Duration, DurationLike, UserError, named_leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """Replace arrays of the state between two steps: a k-means start, a target distribution, a codebook.

    A subclass writes `compute`. It must be a pure function of what it is given, because a resumed run computes it again.

    Attributes:
        start: after which step the first update is made (0: before the first step).
        every: how often it is made from then on (0: once).
    """

    start: DurationLike = Duration(0)
    every: DurationLike = Duration(0)

    def __post_init__(self) -> None:
        for name in ("start", "every"):
            object.__setattr__(self, name, Duration.parse(getattr(self, name)))

    def compute(self, view: View) -> Mapping[str, Any]:
        """Compute the arrays to replace, by name ("params/centres", "targets/assignments"), of unchanged shape and dtype.

        Args:
            view: the model as it is being trained (not its average), beside its data.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method compute(view)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartAtClassShares(Update):
    """Start the output layer's bias at the log of the training classes' shares, so that the first steps do not go into them.

    A single output, the logit of the second of two classes, starts at their log odds.

    Attributes:
        bias: the name of the parameter, [K] or, of an ensemble, [M, K].
    """

    bias: str = "params/output/bias"

    def compute(self, view: View) -> Mapping[str, Any]:
        """Compute the bias.

        Raises:
            UserError: the model has no such parameter, or not one for each class.
        """
        known = named_leaves(view.variables)
        if self.bias not in known:
            raise UserError(f"StartAtClassShares: the model has no {self.bias}; name its output layer's bias")
        old = np.asarray(known[self.bias])
        classes = max(2, old.shape[-1])
        counts = np.bincount(np.asarray(view.splits.train["targets"]).ravel(), minlength=classes)
        if len(counts) > classes:
            raise UserError(f"StartAtClassShares: {self.bias} has {old.shape[-1]} numbers for {len(counts)} classes")
        shares = np.log(np.maximum(counts, 1) / counts.sum())
        values = shares[1:] - shares[0] if old.shape[-1] == 1 else shares
        return {self.bias: np.broadcast_to(values, old.shape).astype(old.dtype)}
