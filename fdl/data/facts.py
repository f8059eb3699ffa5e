"""Facts: what the data decides about a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fdl.data.picture_spec import KEY, picture_spec
from fdl.types import Arrays


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the data decides about a run, as far as its source knows: models, tasks and predictions ask here.

    What a source leaves empty and the rows show, `fdl.data.pipeline.load` fills in (`outputs`, `input_shape`). A field of a
    model annotated with `fdl.types.Fact("outputs")` and left at 0 is given the value from here before the run starts.

    Attributes:
        classes: the class names, in the order of their numbers.
        vocabulary: the tokens, in the order of their numbers.
        numeric: the names of the numeric columns, in the order of inputs["numeric"].
        categories: category column -> its values in the order of their numbers, in the order of inputs["category"].
        target: the name of what is predicted.
        unit: what targets are measured in ("100,000 dollars").
        outputs: how many numbers a model must give: one for each class, or one for each number of a target.
        input_shape: of one example's "inputs" as loaded, () where they are several arrays.
        extra: whatever else a source of your own wants to keep with the run; JSON values.
    """

    classes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    target: str = ""
    unit: str = ""
    outputs: int = 0
    input_shape: tuple[int, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra", _plain(self.extra))  # as it is read back: lists, no tuples

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many numbers each category column may hold: its values, and one for any other."""
        return tuple(len(values) + 1 for values in self.categories.values())

    def value(self, name: str) -> Any:
        """Return the fact called `name`, from `extra` where it is none of the above; None where it is not known."""
        names = {*(field.name for field in dataclasses.fields(self)), "category_sizes"}
        known = getattr(self, name) if name in names else None
        return known or self.extra.get(name) or None

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json.dumps` takes and `from_json` reads."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Facts:
        """Read the facts that `to_json` wrote; names that this version does not know are left out."""
        known = {field.name: value[field.name] for field in dataclasses.fields(cls) if field.name in value}
        for name in ("classes", "vocabulary", "numeric", "input_shape"):
            known[name] = tuple(known.get(name, ()))
        known["categories"] = {column: tuple(values) for column, values in known.get("categories", {}).items()}
        return cls(**known)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def complete_facts(facts: Facts, train: Arrays) -> Facts:
    """Add to the facts what the rows show and the source has not said: `outputs`, `input_shape`, the form of pictures."""
    outputs, targets, inputs = facts.outputs or len(facts.classes), train.get("targets"), train.get("inputs")
    if not outputs and targets is not None and not isinstance(targets, Mapping):
        if not np.issubdtype(targets.dtype, np.integer):
            outputs = math.prod(targets.shape[1:])
        elif isinstance(targets, np.ndarray):
            outputs = int(targets.max()) + 1
    shape = () if inputs is None or isinstance(inputs, Mapping) else tuple(map(int, inputs.shape[1:]))
    spec = picture_spec(inputs)
    extra = facts.extra if spec is None else {KEY: spec.to_json()} | dict(facts.extra)
    return dataclasses.replace(facts, outputs=outputs, input_shape=facts.input_shape or shape, extra=extra)
