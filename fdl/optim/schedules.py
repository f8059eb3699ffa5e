"""Learning-rate schedules: the multiplier of the learning rate as a pure function of the number of updates made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp

from fdl.types import Array

LearningRate = Callable[[Any], Array]
"""The index of a step, from 0 -> the learning rate of its update, a float32 scalar."""
ScheduleName = Literal["constant", "linear", "cosine", "onecycle", "piecewise", "range_test"]

_ONECYCLE_WARMUP = 0.3
_ONECYCLE_START = 1 / 25


def make_multiplier(
    name: ScheduleName, total: int, warmup: float, min_ratio: float, milestones: tuple[float, ...], factor: float
) -> Callable[[Any], Array]:
    """Make the function from the index of an update, 0 ... total - 1, to the multiplier of the learning rate, in (0, 1].

    Args:
        total: updates of the whole run.
        warmup: share of the run spent on the rise to 1.
        min_ratio: the multiplier at the end (of a range test: at the beginning).
        milestones: shares of the run at which a piecewise schedule is multiplied by `factor`.
    """
    total = max(1, total)
    warmup_steps = round((warmup or (_ONECYCLE_WARMUP if name == "onecycle" else 0.0)) * total)
    boundaries = [round(milestone * total) for milestone in milestones if name == "piecewise"]

    def decayed(step: Array) -> Array:
        progress = jnp.clip((step - warmup_steps) / max(1, total - warmup_steps), 0, 1)
        if name == "linear":
            return min_ratio + (1 - min_ratio) * (1 - progress)
        if name in ("cosine", "onecycle"):
            return min_ratio + (1 - min_ratio) * _cosine(progress)
        if name == "range_test":
            return min_ratio ** (1 - jnp.clip(step / max(1, total - 1), 0, 1))
        multiplier = jnp.float32(1)
        for boundary in boundaries:
            multiplier = multiplier * jnp.where(step >= boundary, factor, 1.0)
        return multiplier

    def multiplier(step: object) -> Array:
        step = jnp.asarray(step, jnp.float32)
        # Step 0 already moves: its multiplier is not 0. The peak is the last warm-up step's.
        warmed_up = jnp.clip((step + 1) / max(1, warmup_steps), 0, 1)
        if name == "onecycle":
            warmed_up = _ONECYCLE_START + (1 - _ONECYCLE_START) * _cosine(1 - warmed_up)
        return jnp.where(step < warmup_steps, warmed_up, decayed(step))

    return multiplier


def _cosine(progress: Array) -> Array:
    """Fall from 1 at 0 to 0 at 1, level at both ends."""
    return (1 + jnp.cos(jnp.pi * progress)) / 2
