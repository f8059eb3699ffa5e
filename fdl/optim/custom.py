"""Any Optax transform as an experiment's optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import optax

from fdl.optim.groups import FROZEN, label_params, mask_frozen
from fdl.optim.schedules import LearningRate
from fdl.types import Probability, UserError


class Recipe(Protocol):
    """What a run needs of its optimizer: the interface of `Optimizer` and `CustomOptimizer`."""

    @property
    def ema(self) -> float:
        """The decay of the moving average of the parameters that evaluation uses; 0 for none."""

    def build(self, total_steps: int) -> tuple[optax.GradientTransformationExtraArgs, LearningRate | None]:
        """Make the transform, whose `update` takes `step=`, and the rate of each step (None where it is unknown)."""

    def trainable(self, params: object) -> Any:
        """Return a tree like `params` of True where a parameter is trained and False where it is frozen."""


@dataclasses.dataclass(frozen=True)
class CustomOptimizer:
    """The user's own Optax transform, with its rate and schedule, which are not logged.

    Attributes:
        transform: the transform, or a function from the run's number of steps to it.
        ema: as `Optimizer.ema`.
        freeze: as `Optimizer.freeze`.
    """

    transform: optax.GradientTransformation | Callable[[int], optax.GradientTransformation]
    ema: Probability = 0.0
    freeze: tuple[str, ...] = ()

    def build(self, total_steps: int) -> tuple[optax.GradientTransformationExtraArgs, None]:
        """Return the transform for a run of `total_steps`; `step=` is passed to those that take extra arguments.

        Raises:
            UserError: the function returns no transform.
        """
        made = self.transform
        if not isinstance(made, optax.GradientTransformation):
            made = made(total_steps)
        if not isinstance(made, optax.GradientTransformation):
            raise UserError(
                f"optimizer: the function returned {type(made).__name__}, not an optax.GradientTransformation"
            )
        return mask_frozen(made, self.trainable) if self.freeze else optax.with_extra_args_support(made), None

    def trainable(self, params: object) -> Any:
        """Return a tree like `params` of True where a parameter is trained and False where `freeze` names it.

        Raises:
            UserError: a name in `freeze` is no parameter's.
        """
        return jax.tree.map(lambda label: label != FROZEN, label_params(params, (), self.freeze))


def as_optimizer(value: object) -> Recipe:
    """Convert what an experiment gives as `optimizer`: a recipe, an Optax transform, or a function that makes one.

    >>> as_optimizer(optax.adam(1e-3)).ema
    0.0

    Raises:
        UserError: it is none of these.
    """
    if isinstance(value, optax.GradientTransformation):
        return CustomOptimizer(value)
    if not isinstance(value, type):
        if all(hasattr(value, name) for name in ("ema", "build", "trainable")):
            return cast(Recipe, value)
        if callable(value):
            return CustomOptimizer(value)
    raise UserError(
        f"optimizer: expected an fdl.optim.Optimizer, an Optax transform such as optax.adam(1e-3), or a function from the "
        f"run's number of steps to one, not {type(value).__name__}"
    )
