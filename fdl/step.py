"""The state of a run and the two pure functions that touch it: one training step, one evaluation step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from fdl import losses
from fdl.tasks.task import Task
from fdl.types import Array, Batch, Draw, Transform


@flax.struct.dataclass
class State:
    """Arrays only; everything that a resume needs.

    Attributes:
        step: int32 [], finished training steps.
        params: the trained parameters.
        stats: the model's other collections ("batch_stats"), {} where it has none.
        opt_state: the optimizer's.
        ema: the running average of `params` that evaluation uses, None where it is off.
    """

    step: Array
    params: Any
    stats: Mapping[str, Any]
    opt_state: optax.OptState
    ema: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What evaluation applies the model with."""
        return {"params": self.params if self.ema is None else self.ema, **self.stats}


def init_state(
    key: Array, batch: Batch, *, model: nn.Module, prepare: Transform, tx: optax.GradientTransformation, ema: bool
) -> State:
    """The state at step 0.

    Args:
        key: the run's key; the parameters depend on it and on the shapes of `batch` alone.
        batch: raw rows (any values; their shapes count).
    """
    inputs = prepare(batch, None)["inputs"]
    stats, params = flax.core.pop(model.init(key, inputs, train=False), "params")
    stats = {name: value for name, value in stats.items() if name != "intermediates"}
    # A copy, for a buffer that two leaves share cannot be donated twice.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return State(jnp.zeros((), jnp.int32), params, stats, tx.init(params), average)


def example_draw(key: Array, rows: Array) -> Draw:
    """Uniform numbers keyed by an example's place in the global batch, so that they do not depend on the devices' number.

    Each call of the function returned gives fresh numbers; the order of calls is fixed when the step is traced.
    """
    calls = itertools.count()

    def draw(shape: tuple[int, ...]) -> Array:
        call_key = jax.random.fold_in(key, next(calls))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(call_key, rows)
        return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)

    return draw


def train_step(
    state: State,
    batch: Batch,
    key: Array,
    *,
    model: nn.Module,
    task: Task,
    tx: optax.GradientTransformation,
    learning_rate: Callable[[Array], Array],
    ema: float,
    augment: Transform,
    prepare: Transform,
    axis_name: str | None = None,
) -> tuple[State, dict[str, Array]]:
    """One update: the state after it, and the batch's means as scalars.

    Args:
        state: donated by the caller.
        batch: raw rows [B, ...]; under pmap this device's part.
        key: the run's key; this step's randomness is fold_in(key, step).
        ema: decay of the parameters' average that evaluation uses, 0 for none.
        axis_name: the mapped axis under pmap, over which gradients and metrics are averaged; None under jit.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    rows = jnp.arange(len(jax.tree.leaves(batch)[0]))
    if axis_name:
        index = lax.axis_index(axis_name)
        rows = rows + index * len(rows)
        dropout_key = jax.random.fold_in(dropout_key, index)
    batch = prepare(augment(batch, example_draw(augment_key, rows)), None)

    def loss_fn(params: Any) -> tuple[Array, tuple[dict[str, Array], Mapping[str, Any]]]:
        outputs, stats = model.apply(
            {"params": params, **state.stats},
            batch["inputs"],
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(state.stats),
        )
        means = {name: values.mean() for name, values in task.score(outputs, batch).items()}
        return means["loss"], (means, stats)

    grads, (metrics, stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    if axis_name:
        # After the gradient: a mean inside the loss would leave the gradients wrong by the number of devices.
        grads, metrics = lax.pmean((grads, metrics), axis_name)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.ema
    if ema:
        # Forget the start soon: the decay grows to `ema`, as TensorFlow's ExponentialMovingAverage(num_updates) has it.
        decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
    metrics |= {"learning_rate": learning_rate(state.step), "gradient_norm": optax.tree.norm(grads)}
    return State(state.step + 1, params, stats, opt_state, average), metrics


def eval_step(
    variables: Mapping[str, Any],
    batch: Batch,
    *,
    model: nn.Module,
    task: Task,
    prepare: Transform,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """Masked sums of every score over one padded batch, and under "count" how many values they are of."""
    batch = prepare(batch, None)
    outputs = model.apply(variables, batch["inputs"], train=False)
    scores = task.score(outputs, batch)
    sums, count = losses.sums(scores, batch["mask"])
    sums["count"] = count
    return lax.psum(sums, axis_name) if axis_name else sums


def predict_step(variables: Mapping[str, Any], batch: Batch, *, model: nn.Module, prepare: Transform) -> Any:
    """The model's outputs for raw rows, in inference mode."""
    return model.apply(variables, prepare(batch, None)["inputs"], train=False)
