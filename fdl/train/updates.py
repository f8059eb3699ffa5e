"""Updates between two steps at fixed step numbers (`fdl.experiment.Update`), so that a resume makes the same ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fdl.distributed import layouts
from fdl.experiment.updates import Update
from fdl.train.evaluation import view
from fdl.train.program import Program
from fdl.train.step import State
from fdl.types import Duration, RunError, is_due, leaf_name


def update_steps(program: Program) -> tuple[int, ...]:
    """List the steps after which some update is made, in rising order."""
    total, found = program.total_steps, set[int]()
    for update in program.experiment.updates:
        start, every = _timing(program, update)
        count = math.ceil((total - start) / every) if every else 1
        found |= {start, *(start + round(i * every) for i in range(1, count))}
    return tuple(sorted(step for step in found if step < total))


def apply_updates(program: Program, state: State, step: int, heartbeat: Callable[[], None]) -> State:
    """Make the updates that are due after `step`, each seeing the result of the one before."""
    for update in _due(program, step):
        variables = {"params": state.params, **state.stats}
        replaced = update.compute(view(program, variables, heartbeat))
        state = _replace(program, state, replaced, type(update).__name__)
    return state


def _due(program: Program, step: int) -> list[Update]:
    found = []
    for update in program.experiment.updates:
        start, every = _timing(program, update)
        if step == start or is_due(step - start, every):
            found.append(update)
    return found


def _timing(program: Program, update: Update) -> tuple[int, float]:
    """Return the step of the first update, and the steps between two (0: there is only one)."""
    return round(program.in_steps(Duration.parse(update.start))), program.in_steps(Duration.parse(update.every))


def _replace(program: Program, state: State, replaced: Mapping[str, Any], who: str) -> State:
    """Replace the named arrays of the state, in the average of the parameters too."""
    left = dict(replaced)

    def place(path: Any, leaf: Any, spec: Any) -> Any:
        name = leaf_name(path)
        if name not in replaced:
            return leaf
        array = np.asarray(left.pop(name))
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise RunError(
                f"{who} computed {name} as {array.dtype}{list(array.shape)}; the model has {spec.dtype}{list(spec.shape)}"
            )
        return layouts.place(array, spec)

    specs = {"params": program.state_spec.params, **program.state_spec.stats}
    variables = {"params": state.params, **state.stats}
    new = jax.tree_util.tree_map_with_path(place, variables, specs)
    if left:
        raise RunError(f"{who} computed {sorted(left)[0]}, which is no array of the model")
    ema = state.ema
    if ema is not None:
        same = jax.tree.map(lambda old, now: old is now, variables["params"], new["params"])
        # A copy: a buffer that two leaves share cannot be donated twice.
        ema = jax.tree.map(lambda kept, average, now: average if kept else now.copy(), same, ema, new["params"])
    return dataclasses.replace(state, params=new["params"], stats={k: new[k] for k in state.stats}, ema=ema)
