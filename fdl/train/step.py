"""The state of a run and its pure functions: one training step, one evaluation step, one decoding step.

Read `train_step` first: augment, gradient, reduction over the devices, update, average. Everything else here is what it
calls. Legend: B examples of a global batch; under pmap a function sees one device's part of it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from fdl.optim import LearningRate, eval_params, hold_frozen_statistics, stop_frozen
from fdl.tasks import losses
from fdl.tasks.task import Task
from fdl.train.finite import WeightedSum, check_finite, keep_where_bad
from fdl.types import Array, Batch, Draw, Transform

Sums = dict[str, WeightedSum]


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
        """The variables evaluation uses: averaged parameters, where the run or its rule keeps an average."""
        average = eval_params(self.opt_state, self.params) if self.ema is None else self.ema
        return {"params": self.params if average is None else average, **self.stats}


def init_state(
    key: Array, batch: Batch, *, model: nn.Module, task: Task, tx: optax.GradientTransformation, ema: bool
) -> State:
    """Draw the state at step 0.

    Args:
        key: the run's key; the parameters depend on it and on the shapes of `batch` alone.
        batch: prepared rows (any values; their shapes count).
    """
    stats, params = flax.core.pop(dict(task.init(model, key, batch)), "params")
    stats = {name: value for name, value in stats.items() if name != "intermediates"}
    # A copy: a buffer that two leaves share cannot be donated twice.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return State(jnp.zeros((), jnp.int32), params, stats, tx.init(params), average)


def train_step(
    state: State,
    batch: Batch,
    key: Array,
    *,
    model: nn.Module,
    task: Task,
    tx: optax.GradientTransformationExtraArgs,
    learning_rate: LearningRate | None,
    trainable: Callable[[Any], object],
    ema: float,
    augment: Transform,
    prepare: Transform,
    axis_name: str | None = None,
    loss_limit: float | None = None,
    skip_bad: bool = False,
) -> tuple[State, Metrics]:
    """Make one update.

    Args:
        state: donated by the caller.
        batch: raw rows [B, ...]; under pmap this device's part.
        key: the run's key; this step's randomness is fold_in(key, step).
        learning_rate: for the log alone; None where the optimizer keeps its own.
        trainable: parameters -> a tree like them of True and, for frozen ones, False.
        ema: decay of the parameters' average that evaluation uses, 0 for none.
        axis_name: the mapped axis under pmap, over which sums and gradients are added up; None under jit.
        loss_limit: a loss above it counts as not finite.
        skip_bad: where something is not finite, keep everything as it was except the step's number.

    Returns:
        The state after it, and the weighted sums of every score over the global batch.
    """
    batch, rngs = training_batch(batch, key, state.step, augment, prepare, axis_name)
    loss_fn = functools.partial(
        mean_loss,
        stats=state.stats,
        batch=batch,
        rngs=rngs,
        model=model,
        task=task,
        trainable=trainable,
        axis_name=axis_name,
    )
    grads, (sums, bad_inputs, stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads, sums, bad_inputs = add_over(axis_name, (grads, sums, bad_inputs))
    updates, opt_state = tx.update(grads, state.opt_state, state.params, step=state.step, loss_weight=sums["loss"][1])
    params = optax.apply_updates(state.params, updates)
    average = _update_average(state, params, ema) if ema else state.ema
    norm, first_bad = check_finite(grads, sums["loss"], bad_inputs, loss_limit)
    sums["gradient_norm"] = norm, 1.0
    if learning_rate is not None:
        sums["learning_rate"] = learning_rate(state.step), 1.0
    new = State(state.step + 1, params, stats, opt_state, average)
    sums = jax.tree.map(jnp.float32, sums)
    if skip_bad:
        new = keep_where_bad(dataclasses.replace(state, step=state.step + 1), new, first_bad)
    return new, Metrics(sums, first_bad)


class Metrics(NamedTuple):
    """What the host reads from a step.

    Attributes:
        sums: of every score, "gradient_norm" and "learning_rate" (each of weight 1).
        first_bad: int32: 0, or 1 + the index in `check_names` of the first thing that is not finite.
    """

    sums: Sums
    first_bad: Array


def eval_step(
    variables: Mapping[str, object],
    batch: Batch,
    *,
    model: nn.Module,
    task: Task,
    prepare: Transform,
    axis_name: str | None = None,
) -> Sums:
    """Score one padded batch: the weighted sum of every score, padding left out."""
    batch = prepare(batch, None)
    outputs = task.apply(model, variables, batch, train=False, rngs=_fixed_rngs())
    return add_over(axis_name, losses.weighted_sums(task.score(outputs, batch), batch["mask"]))


def decode_step(
    variables: Mapping[str, object], batch: Batch, *, model: nn.Module, task: Task, prepare: Transform
) -> Any:
    """Apply the model in inference mode to raw rows and decode as the task does."""
    return task.decode(model, variables, prepare(batch, None), _fixed_rngs())


def output_step(
    variables: Mapping[str, object], batch: Batch, *, model: nn.Module, task: Task, prepare: Transform
) -> Any:
    """Apply the model in inference mode to raw rows."""
    return task.apply(model, variables, prepare(batch, None), train=False, rngs=_fixed_rngs())


# ---- the parts of a training step ------------------------------------------------------------------------------------


def example_draw(key: Array, rows: Array) -> Draw:
    """Draw uniform numbers keyed by an example's place in the global batch, so that the number of devices changes none.

    Each call of the function returned gives fresh numbers; the order of calls is fixed when the step is traced.
    """
    calls = itertools.count()

    def draw(shape: tuple[int, ...]) -> Array:
        call_key = jax.random.fold_in(key, next(calls))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(call_key, rows)
        return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)

    return draw


def training_batch(
    batch: Batch, key: Array, step: Array, augment: Transform, prepare: Transform, axis_name: str | None = None
) -> tuple[Batch, dict[str, Array]]:
    """Augment and prepare a batch for training step number `step`; the model's random streams for that step.

    The batch gains, before it is augmented, "step" (int32 scalar) and "seen" (uint32 [B]: how many examples of the run come
    before each), for ops, losses and model calls that depend on them. The streams are "dropout"
    and "params", which Flax falls back to: a module may draw from `make_rng` of any name, each name other numbers.
    """
    augment_key, model_key = jax.random.split(jax.random.fold_in(key, step))
    rows = jnp.arange(len(jax.tree.leaves(batch)[0]))
    size = len(rows) * (lax.axis_size(axis_name) if axis_name else 1)
    if axis_name:
        # Augmentation is keyed by the place in the global batch. The model draws for whole arrays and cannot be, so each
        # device folds in its index; otherwise all of them would drop the same units.
        index = lax.axis_index(axis_name)
        rows = rows + index * len(rows)
        model_key = jax.random.fold_in(model_key, index)
    rngs = {"dropout": model_key, "params": jax.random.fold_in(model_key, 1)}
    seen = jnp.uint32(step) * size + rows.astype(jnp.uint32)
    batch = batch | {"step": step, "seen": seen}
    return prepare(augment(batch, example_draw(augment_key, rows)), None), rngs


def add_over(axis_name: str | None, tree: object) -> Any:
    """Sum over the devices of a mapped axis, in one reduction; return the tree itself where there is none.

    A leaf that is a Python number is the same on every device and only multiplied: it needs no reduction of its own.
    """
    if not axis_name:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    summed = iter(lax.psum([leaf for leaf in leaves if not isinstance(leaf, float)], axis_name))
    size = lax.axis_size(axis_name)
    return jax.tree.unflatten(treedef, [leaf * size if isinstance(leaf, float) else next(summed) for leaf in leaves])


def mean_loss(
    params: object,
    *,
    stats: Mapping[str, object],
    batch: Batch,
    rngs: Mapping[str, Array],
    model: nn.Module,
    task: Task,
    trainable: Callable[[Any], object] = lambda params: jax.tree.map(lambda leaf: True, params),
    axis_name: str | None = None,
) -> tuple[Array, tuple[Sums, Array, Mapping[str, Any]]]:
    """Compute this device's share of the mean loss over a batch as `training_batch` gives it.

    The share is sum / (weight over ALL devices), so that adding the shares' gradients up gives the gradient of the mean:
    a mean over each device's own weight would be wrong wherever the devices hold unequal weights.

    Returns:
        The share, and with it every score's sum, the number of examples that are not finite, and the new statistics.
    """
    trained = trainable(params)
    variables = {"params": stop_frozen(params, trained), **stats}
    with hold_frozen_statistics(trained, stats):
        outputs, stats = task.apply(model, variables, batch, train=True, rngs=rngs, mutable=list(stats))
    sums = losses.weighted_sums(task.score(outputs, batch), batch.get("mask"))
    total, weight = sums["loss"]
    weight = add_over(axis_name, weight)
    weight = weight if isinstance(weight, float) else lax.stop_gradient(weight)
    finite = [jnp.isfinite(x).reshape(len(x), -1).all(1) for x in jax.tree.leaves(batch["inputs"])]
    # Counted as what is NOT finite: zero stays zero however the compiler orders or scales a sum. In float32, so that it
    # joins the one reduction over the devices.
    bad_inputs = jnp.sum(~jnp.stack(finite).all(0), dtype=jnp.float32)
    return losses.mean_of(total, weight), (sums, bad_inputs, stats)


def _update_average(state: State, params: object, ema: float) -> Any:
    """Average the parameters; the decay grows to `ema`, so that the start is soon forgotten.

    decay = min(ema, (1 + step) / (10 + step)), as TensorFlow's ExponentialMovingAverage(num_updates) has it.
    """
    decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)


def _fixed_rngs() -> dict[str, Array]:
    """Return the random streams of a model that also draws in inference (a variational autoencoder), always the same."""
    return {"params": jax.random.key(0)}
