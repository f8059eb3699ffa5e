"""Optimizers: one frozen value of settings, or any Optax transform, that `build` turns into the update of a run's parameters."""

from fdl.optim.custom import CustomOptimizer, Recipe, as_optimizer
from fdl.optim.freezing import hold_frozen_statistics, stop_frozen
from fdl.optim.groups import Group
from fdl.optim.recipe import Optimizer
from fdl.optim.rules import eval_params
from fdl.optim.schedules import LearningRate

__all__ = [
    "CustomOptimizer", "Group", "LearningRate", "Optimizer", "Recipe", "as_optimizer", "eval_params",
    "hold_frozen_statistics", "stop_frozen",
]  # fmt: skip
