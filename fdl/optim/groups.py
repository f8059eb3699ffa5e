"""Groups of parameters by the names of their paths ("conv1/kernel"): each with its own rate, decay or rule, or frozen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

import jax
import optax

from fdl.optim.rules import Rule
from fdl.types import UserError, leaf_name


@dataclasses.dataclass(frozen=True)
class Group:
    """What differs for the parameters that `pattern` matches. As text: "encoder:scale=0.1:weight_decay=0", "stem*:frozen".

    Attributes:
        pattern: a parameter's path ("conv1/kernel"), or the path of a part, which matches all under it ("conv1"); "*"
            matches any characters, "/" included ("*/bias", "stage[12]*").
        scale: multiplies the learning rate.
        weight_decay: in place of the optimizer's own; None: the same.
        rule: in place of the optimizer's own; None: the same.
        frozen: not trained.

    Raises:
        ValueError: a value out of its range, or a frozen group with other settings.
    """

    pattern: str
    scale: float = 1.0
    weight_decay: float | None = None
    rule: Rule | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("a group needs a pattern of parameter names, such as encoder or */bias")
        if not (0 < self.scale < math.inf and 0 <= (self.weight_decay or 0) < math.inf):
            raise ValueError(f"group {self.pattern}: expected a scale above 0 and a weight_decay of 0 or more")
        if self.rule is not None and self.rule not in get_args(Rule):
            raise ValueError(f"group {self.pattern}: expected a rule of {' | '.join(get_args(Rule))}, not {self.rule}")
        if self.frozen and (self.scale, self.weight_decay, self.rule) != (1.0, None, None):
            raise ValueError(f"group {self.pattern}: frozen parameters take no scale, weight_decay or rule")

    @classmethod
    def parse(cls, text: str) -> Group:
        """Read PATTERN[:scale=X][:weight_decay=X][:rule=NAME], or PATTERN:frozen.

        >>> Group.parse("encoder:scale=0.1")
        Group(pattern='encoder', scale=0.1, weight_decay=None, rule=None, frozen=False)

        Raises:
            ValueError: the text is no group.
        """
        pattern, *settings = (part.strip() for part in text.split(":"))
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if setting == "frozen":
                values["frozen"] = True
            elif name == "rule":
                values["rule"] = value
            elif name in ("scale", "weight_decay"):
                values[name] = float(value)
            else:
                raise ValueError(
                    f"expected scale=X, weight_decay=X, rule=NAME or frozen after {pattern}:, not {setting}"
                )
        return cls(pattern, **values)

    def __str__(self) -> str:
        named = [("scale", self.scale, 1.0), ("weight_decay", self.weight_decay, None), ("rule", self.rule, None)]
        parts = [f"{name}={value}" for name, value, default in named if value != default]
        return ":".join([self.pattern, *parts, *["frozen"] * self.frozen])


FROZEN = "frozen"
REST = "rest"


def label_params(params: object, groups: Sequence[Group], freeze: Sequence[str]) -> Any:
    """Label every leaf of `params`: FROZEN, the index (as text) of the first group that matches it, or REST.

    Raises:
        UserError: a pattern matches no parameter.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    paths = [leaf_name(path) for path, _ in leaves]
    patterns = {"freeze": freeze, "groups": [group.pattern for group in groups]}
    for setting, pattern in [(setting, pattern) for setting, several in patterns.items() for pattern in several]:
        if not any(matches(path, pattern) for path in paths):
            tops = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
            raise UserError(f"optimizer.{setting}: no parameter is named {pattern!r}; there are {tops}")
    return jax.tree.unflatten(tree, [_label(path, groups, freeze) for path in paths])


def matches(path: str, pattern: str) -> bool:
    """Return whether a pattern names a path or a part of the tree above it.

    >>> [matches("conv1/kernel", pattern) for pattern in ("conv1", "*/kernel", "conv1/k*", "conv")]
    [True, True, True, False]
    """
    return fnmatchcase(path, pattern) or fnmatchcase(path, pattern.rstrip("/") + "/*")


def _label(path: str, groups: Sequence[Group], freeze: Sequence[str]) -> str:
    if any(matches(path, pattern) for pattern in freeze):
        return FROZEN
    for index, group in enumerate(groups):
        if matches(path, group.pattern):
            return FROZEN if group.frozen else str(index)
    return REST


def mask_frozen(
    transform: optax.GradientTransformation, trained: Callable[[Any], Any]
) -> optax.GradientTransformationExtraArgs:
    """Apply `transform` to the leaves that `trained(params)` marks True; the others keep no state and get an update of 0."""
    return optax.partition({True: transform, False: optax.set_to_zero()}, trained)
