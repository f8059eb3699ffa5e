"""Types that every other file shares: batches, durations, ranges, and the errors (`fdl.errors`)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import jax
import numpy as np

from fdl.errors import RunError as RunError
from fdl.errors import UserError as UserError
from fdl.errors import one_line as one_line
from fdl.errors import printable as printable

T = TypeVar("T")
Array = jax.Array
Arrays = dict[str, Any]
"""Host data, name -> NumPy array [N, ...] (or a dict of such), one row an example."""
Batch = dict[str, Any]
"""Device data, name -> array [B, ...]: "inputs" (what the model is given), "targets", and in evaluation "mask"."""
Draw = Callable[[tuple[int, ...]], Array]
"""draw(shape) -> [B, *shape] uniform numbers in [0, 1), keyed by seed, step and the example's place in the global batch."""
Transform = Callable[[Batch, "Draw | None"], Batch]
"""A pure function of a batch, traced inside the compiled step; `draw` is None outside training."""
Metrics = dict[str, float]

DATA_AXIS = "data"
"""The name of the device axis along which the batch is split (and, under pmap, the axis of every collective)."""

MAX_SEED = 2**32 - 1
"""JAX keys take 32 bits: a larger seed would draw the parameters of a smaller one."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a number may take, ends included unless `open` names one ("low", "high" or "both")."""

    low: float = -math.inf
    high: float = math.inf
    open: Literal["", "low", "high", "both"] = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        below = value < self.high if self.open in ("high", "both") else value <= self.high
        return above and below  # a NaN is in no range

    def __str__(self) -> str:
        low = "(" if self.open in ("low", "both") or self.low == -math.inf else "["
        high = ")" if self.open in ("high", "both") or self.high == math.inf else "]"
        return f"{low}{self.low:g}, {self.high:g}{high}"


@dataclasses.dataclass(frozen=True)
class Fact:
    """Marks a field whose 0 (or empty tuple) means "from the data": `fdl.data.splits.Facts` gives the value called `name`.

    For a number, a fact that is a sequence counts: `Fact("vocabulary")` is the number of tokens. `optional`: the field stays
    as it is where the data do not say (a table without categories), instead of being asked for.
    """

    name: str
    optional: bool = False


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Outputs = Annotated[int, Range(0), Fact("outputs")]
"""How many numbers a model gives for one example; 0: as many as the data ask for."""
VocabularySize = Annotated[int, Range(0), Fact("vocabulary")]
"""How many tokens a model knows; 0: as many as the data have."""
InputShape = Annotated[tuple[int, ...], Fact("input_shape")]
"""The shape of one example's inputs; (): as the data have it."""
Positive = Annotated[float, Range(0, open="both")]
NonNegative = Annotated[float, Range(0, open="high")]
Probability = Annotated[float, Range(0, 1, open="high")]
Fraction = Annotated[float, Range(0, 1)]

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "elu", "linear"]
Initializer = Literal["he", "xavier", "lecun", "orthogonal", "normal", "large", "zeros"]
DType = Literal["float32", "bfloat16"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|examples?|%)?")


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training: `300` or `300steps`, `5epochs`, `20000examples`, `10%` (of the whole run)."""

    value: float
    unit: Literal["steps", "epochs", "examples", "%"] = "steps"

    @classmethod
    def parse(cls, text: str | int | Duration) -> Duration:
        """Parse `text` as a duration.

        Raises:
            ValueError: `text` is none of the four forms, or a fraction of a step or of an example.
        """
        if isinstance(text, Duration):
            return text
        match = _DURATION.fullmatch(str(text).strip())
        if not match:
            raise ValueError("expected a duration such as 300, 5epochs, 20000examples or 10%")
        unit = (match[2] or "steps").rstrip("s")
        unit = unit if unit == "%" else unit + "s"
        value = float(match[1])
        if value > (2**53 if unit == "examples" else 2**31 - 1):  # steps are counted in 32 bits
            raise ValueError("longer than any run can be: expected a smaller number")
        if unit in ("steps", "examples") and value != int(value):
            raise ValueError(f"a fraction of {unit} cannot be had: expected a whole number")
        return cls(value, unit)  # type: ignore[arg-type]  # the pattern admits only these four units

    def __str__(self) -> str:
        return f"{self.value:g}" + ("" if self.unit == "steps" else self.unit)

    def in_steps(self, batch_size: int, num_examples: int, total: int | None = None) -> float:
        """Convert to steps, at least 1 (0 only where the duration itself is 0); an epoch need not be a whole number.

        Args:
            batch_size: examples a step.
            num_examples: examples an epoch.
            total: steps of the whole run, which `%` is of.
        """
        if self.value == 0:
            return 0.0
        if self.unit == "%" and total is None:
            raise ValueError("the length of a run cannot be a share of itself")
        steps = {
            "steps": self.value,
            "epochs": self.value * num_examples / batch_size,
            "examples": self.value / batch_size,
            "%": self.value / 100 * (total or 0),
        }[self.unit]
        return max(1.0, steps)


def is_due(step: int, period: float) -> bool:
    """Return whether a whole number of periods (in steps, 0 for never) ends at `step`, to the nearest step."""
    return step > 0 and period > 0 and round(round(step / period) * period) == step


if TYPE_CHECKING:
    DurationLike = Duration | str | int
else:
    DurationLike = Duration  # what a field holds once its class has parsed it, and what --set reads


def count_examples(arrays: Arrays) -> int:
    """Count the rows, the same number in every array."""
    sizes = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if len(sizes) != 1:
        raise ValueError(f"arrays of one split differ in length: {sorted(sizes)}")
    return sizes.pop()


def take(arrays: Arrays, rows: np.ndarray | slice) -> Arrays:
    """Return the given rows of every array."""
    return jax.tree.map(lambda leaf: leaf[rows], arrays)


def named_leaves(tree: object) -> dict[str, Any]:
    """Return every leaf of a tree by its path ("params/conv1/kernel"), in sorted order."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return dict(sorted((leaf_name(path), leaf) for path, leaf in paths))


def leaf_name(path: Any) -> str:
    """Return the name of a leaf by its path in a tree, such as "params/conv1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def unnamed(like: T, leaves: Mapping[str, Any]) -> T:
    """Rebuild the tree of `like` from leaves by name: the inverse of `named_leaves`."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    return cast(T, jax.tree_util.tree_unflatten(treedef, [leaves[leaf_name(path)] for path, _ in paths]))
