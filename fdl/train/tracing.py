"""What a program computes, traced without running it, and what that costs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from fdl.distributed import layouts
from fdl.flops import count_flops, drop_dead_code
from fdl.train import step
from fdl.types import Batch

if TYPE_CHECKING:
    from fdl.train.program import Program


def step_flops(program: Program) -> int:
    """Count the FLOPs of one training step over the whole batch, all devices together."""
    return count_flops(step_jaxpr(program))


def step_jaxpr(program: Program) -> Any:
    """Trace the training step over the whole batch, as one device would compute it."""
    together = dataclasses.replace(program, layout=layouts.Layout("jit", program.layout.mesh))
    return drop_dead_code(
        jax.make_jaxpr(together.train_step)(together.state_spec, together.batch_spec, program.key_spec)
    )


def forward_jaxpr(program: Program) -> Any:
    """Trace the model's call in training, on a whole batch as a training step gives it to the model."""
    state, data, task = program.state_spec, program.data, program.experiment.task

    def batch_of(rows: Batch, key: jax.Array) -> tuple[Batch, dict[str, jax.Array]]:
        return step.training_batch(rows, key, jax.numpy.int32(0), data.augment, data.prepare)

    def forward(variables: Any, batch: Batch, rngs: dict[str, jax.Array]) -> Any:
        names = [name for name in variables if name != "params"]
        return task.apply(program.experiment.model, variables, batch, train=True, rngs=rngs, mutable=names)

    batch, rngs = jax.eval_shape(batch_of, program.batch_spec, program.key_spec)
    return drop_dead_code(jax.make_jaxpr(forward)({"params": state.params, **state.stats}, batch, rngs))
