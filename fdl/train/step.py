"""The state of a run and the two pure functions that touch it: one training step, one evaluation step."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from fdl.models.ops import channel_sum
from fdl.tasks import losses
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


def augmented(
    batch: Batch, key: Array, step: Array, augment: Transform, prepare: Transform, axis_name: str | None = None
) -> tuple[Batch, Array]:
    """The batch as training step number `step` gives it to the model, and that step's key for dropout."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    rows = jnp.arange(len(jax.tree.leaves(batch)[0]))
    if axis_name:
        index = lax.axis_index(axis_name)
        rows = rows + index * len(rows)
        dropout_key = jax.random.fold_in(dropout_key, index)
    return prepare(augment(batch, example_draw(augment_key, rows)), None), dropout_key


def forward(
    params: Any, stats: Mapping[str, Any], batch: Batch, dropout_key: Array, model: nn.Module
) -> tuple[Any, Mapping[str, Any]]:
    """The model's outputs in training, and its other collections after them."""
    variables, rngs = {"params": params, **stats}, {"dropout": dropout_key}
    return model.apply(variables, batch["inputs"], train=True, rngs=rngs, mutable=list(stats))


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
    loss_limit: float | None = None,
    skip_bad: bool = False,
) -> tuple[State, dict[str, Array]]:
    """One update: the state after it, and the batch's means as scalars.

    "first_bad" among them is 0, or 1 + the index in `places` of the first thing that is not finite.

    Args:
        state: donated by the caller.
        batch: raw rows [B, ...]; under pmap this device's part.
        key: the run's key; this step's randomness is fold_in(key, step).
        ema: decay of the parameters' average that evaluation uses, 0 for none.
        axis_name: the mapped axis under pmap, over which gradients and metrics are averaged; None under jit.
        loss_limit: a loss above it counts as not finite.
        skip_bad: where something is not finite, keep everything as it was but the step's number.
    """
    batch, dropout_key = augmented(batch, key, state.step, augment, prepare, axis_name)

    def loss_fn(params: Any) -> tuple[Array, tuple[dict[str, Array], Mapping[str, Any]]]:
        outputs, stats = forward(params, state.stats, batch, dropout_key, model)
        means = {name: values.mean() for name, values in task.score(outputs, batch).items()}
        # The share of examples, as a mean, so that it joins the one reduction over the devices.
        finite = [jnp.isfinite(x).reshape(len(x), -1).all(1) for x in jax.tree.leaves(batch["inputs"])]
        means["finite_inputs"] = jnp.stack(finite).all(0).mean()
        return means["loss"], (means, stats)

    grads, (metrics, stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    if axis_name:
        # After the gradient: a mean inside the loss would leave the gradients wrong by the number of devices.
        grads, metrics = lax.pmean((grads, metrics), axis_name)
    updates, opt_state = tx.update(grads, state.opt_state, state.params, step=state.step)
    params = optax.apply_updates(state.params, updates)
    average = state.ema
    if ema:
        # Forget the start soon: the decay grows to `ema`, as TensorFlow's ExponentialMovingAverage(num_updates) has it.
        decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
    squares = jnp.stack([_sum_of_squares(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(grads)])
    good_loss = metrics["loss"] <= (jnp.finfo(jnp.float32).max if loss_limit is None else loss_limit)
    good_inputs = metrics.pop("finite_inputs") == 1
    good = jnp.concatenate([jnp.stack([good_inputs, good_loss]), jnp.isfinite(squares)])
    first_bad = jnp.where(good.all(), 0, 1 + jnp.argmin(good))
    metrics |= {
        "learning_rate": learning_rate(state.step), "gradient_norm": jnp.sqrt(squares.sum()), "first_bad": first_bad,
    }  # fmt: skip
    new = State(state.step + 1, params, stats, opt_state, average)
    if skip_bad:
        old = dataclasses.replace(state, step=state.step + 1)
        new = jax.tree.map(lambda kept, made: jnp.where(first_bad > 0, kept, made), old, new)
    return new, metrics


def _sum_of_squares(x: Array) -> Array:
    return channel_sum(jnp.square(x)).sum() if x.ndim > 1 else jnp.square(x).sum()


def places(params: Any) -> list[str]:
    """What "first_bad" counts: the inputs, the loss, then the gradient's leaves by name."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    return ["an input", "the loss", *(f"the gradient of {name}" for name in names)]


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
