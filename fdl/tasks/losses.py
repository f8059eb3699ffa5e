"""Losses and metrics by example, and their masked sums and means.

Legend: B examples, K classes; `...` is [B] or [B, T]. Nothing here averages over the batch but `mean` and `sums`, which
count a padded example as nothing. All are to be called inside traced code and are stable for logits of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fdl.types import Array


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Softmax cross entropy in nats: log sum_k exp(z_k) - sum_k p_k z_k.

    Args:
        logits: [..., K].
        labels: class numbers [...] (integers), or class probabilities p [..., K] (floats that sum to 1).
        label_smoothing: the share s of each label spread over all classes, p <- (1 - s) p + s / K
            (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).

    Returns:
        [...].
    """
    logits = logits.astype(jnp.float32)
    probabilities = _probabilities(labels, logits)
    if label_smoothing:
        probabilities = (1 - label_smoothing) * probabilities + label_smoothing / logits.shape[-1]
    # The difference from the maximum first: for large logits the two terms would cancel.
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    return jnp.log(jnp.exp(shifted).sum(-1)) * probabilities.sum(-1) - (probabilities * shifted).sum(-1)


def two_logits(outputs: Array) -> Array:
    """One logit z [..., 1], that of class 1, as two, [0, z] in [..., 2]: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)].

    So the cross entropy of the two is the binary cross entropy of z. More than one output is left as it is.
    """
    return jnp.concatenate([jnp.zeros_like(outputs), outputs], -1) if outputs.shape[-1] == 1 else outputs


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Sigmoid cross entropy in nats: max(z, 0) - z y + log(1 + exp(-|z|)).

    Args:
        logits: [B] or [B, ...].
        targets: y of the same shape, 0 or 1 or a probability between.

    Returns:
        [B], the mean over all other axes.
    """
    targets = _same_shape(logits, targets)
    return _by_example(jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def squared_error(outputs: Array, targets: Array) -> Array:
    """(output - target)^2, in the square of their unit: [B] from [B] or, by the mean over all other axes, [B, ...]."""
    return _by_example(jnp.square(outputs - _same_shape(outputs, targets)))


def absolute_error(outputs: Array, targets: Array) -> Array:
    """|output - target|, in their unit: [B] from [B] or, by the mean over all other axes, [B, ...]."""
    return _by_example(jnp.abs(outputs - _same_shape(outputs, targets)))


def huber(outputs: Array, targets: Array, delta: float = 1.0) -> Array:
    """e^2 / 2 for an error e within `delta`, delta (|e| - delta / 2) beyond (Huber 1964): [B] from [B] or [B, ...]."""
    error = jnp.abs(outputs - _same_shape(outputs, targets))
    within = jnp.minimum(error, delta)
    return _by_example(within * (error - within / 2))


def hinge(logits: Array, labels: Array) -> Array:
    """The margin loss of a multiclass machine: max(0, 1 + max_{k != y} z_k - z_y) (Crammer and Singer 2001).

    Args:
        logits: [..., K], K at least 2.
        labels: class numbers [...].

    Returns:
        [...].
    """
    own = _probabilities(labels, logits) > 0
    label = jnp.where(own, logits, 0).sum(-1)
    rival = jnp.where(own, -jnp.inf, logits).max(-1)
    return jnp.maximum(0, 1 + rival - label)


def binary_hinge(outputs: Array, targets: Array) -> Array:
    """max(0, 1 - y z) with y = -1 for the target 0 and +1 for the target 1: [B] from [B] or [B, ...]."""
    signs = 2 * _same_shape(outputs, targets) - 1
    return _by_example(jnp.maximum(0, 1 - signs * outputs))


def accuracy(logits: Array, labels: Array) -> Array:
    """1 where the largest logit (the first of equal ones) is the label's, else 0: [...] float32.

    Labels are class numbers [...], or class probabilities [..., K] of which the largest names the class.
    """
    return (logits.argmax(-1) == _classes(labels, logits)).astype(jnp.float32)


def binary_accuracy(logits: Array, targets: Array) -> Array:
    """1 where a positive logit meets a target above a half or another one another, else 0: [B] from [B] or [B, ...]."""
    return _by_example(((logits > 0) == (_same_shape(logits, targets) > 0.5)).astype(jnp.float32))


def top_k_accuracy(logits: Array, labels: Array, k: int = 5) -> Array:
    """1 where fewer than `k` classes come before the label's, else 0: [...] float32.

    A class comes before another by a larger logit, or by a smaller number where logits are equal, so that k = 1 is
    `accuracy`. A logit that is not a number makes its example wrong.
    """
    classes = _classes(labels, logits)[..., None]
    number = jnp.broadcast_to(_class_numbers(logits), logits.shape)
    own = jnp.where(number == classes, logits, -jnp.inf).max(-1, keepdims=True)
    before = (logits > own) | ((logits == own) & (number < classes))
    finite = ~jnp.isnan(logits).any(-1)
    return ((before.sum(-1) < k) & finite).astype(jnp.float32)


def sums(values: Mapping[str, Array], mask: Array | None = None) -> tuple[dict[str, Array], Array]:
    """The sum of each value over the batch, and what to divide by: added up over batches, an exact mean over a split.

    Args:
        values: name -> [B] or [B, T], all of one shape.
        mask: the weight of each, 0 for padding (whatever the value there, even NaN): of the values' shape, or [B] for
            values [B, T], or None for ones.

    Returns:
        name -> sum, and the sum of the weights; scalars in float32.
    """
    shapes = {value.shape for value in values.values()}
    if len(shapes) != 1:
        raise ValueError(
            f"values by example differ in shape: { ({name: value.shape for name, value in values.items()}) }"
        )
    (shape,) = shapes
    if mask is None:
        return {name: value.sum(dtype=jnp.float32) for name, value in values.items()}, jnp.float32(math.prod(shape))
    if mask.shape != shape[: mask.ndim]:
        raise ValueError(f"a mask of shape {mask.shape} does not fit values of shape {shape}")
    weights = jnp.broadcast_to(mask.astype(jnp.float32).reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)
    totals = {
        name: jnp.where(weights != 0, value * weights, 0).sum(dtype=jnp.float32) for name, value in values.items()
    }
    return totals, weights.sum()


def mean(values: Mapping[str, Array], mask: Array | None = None) -> dict[str, Array]:
    """The weighted mean of each value; see `sums`. NaN where every weight is zero: the mean of nothing is no number."""
    totals, count = sums(values, mask)
    return {name: total / count for name, total in totals.items()}


def _class_numbers(logits: Array) -> Array:
    return jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))


def _probabilities(labels: Array, logits: Array) -> Array:
    """[..., K] from class numbers [...] or from probabilities, which must have the logits' shape."""
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return _same_shape(logits, labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"class numbers of shape {labels.shape} do not fit logits of shape {logits.shape}")
    # A comparison rather than a look-up: its gradient is no scatter, and it fuses with what uses it.
    return (labels[..., None] == _class_numbers(logits)).astype(logits.dtype)


def _classes(labels: Array, logits: Array) -> Array:
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return _same_shape(logits, labels).argmax(-1)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"class numbers of shape {labels.shape} do not fit logits of shape {logits.shape}")
    return labels


def _same_shape(outputs: Array, targets: Array) -> Array:
    """The targets as floats; [B, 1] against [B] would silently make [B, B]."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs of shape {outputs.shape} and targets of shape {targets.shape} must be alike")
    return targets.astype(outputs.dtype)


def _by_example(values: Array) -> Array:
    return values.astype(jnp.float32).mean(axis=tuple(range(1, values.ndim)))
