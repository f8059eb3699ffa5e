"""Updates between steps: arrays of the state that something other than the gradient determines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fdl.tasks.task import View
from fdl.types import Duration, DurationLike


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
