"""Losses and metrics per example, and their masked sums and means.

Legend: B examples, K classes; `...` is [B] or [B, T]. Nothing here reduces over the batch but `weighted_sums`.
All may be called inside traced code and are stable for logits of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fdl.types import Array


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Compute the softmax cross entropy in nats: log sum_k exp(z_k) - sum_k p_k z_k.

    Args:
        logits: [..., K].
        labels: class numbers [...] (integers), or class probabilities p [..., K] (floats that sum to 1).
        label_smoothing: the share s of each label spread over all classes, p <- (1 - s) p + s / K
            (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).

    A class whose logit is -inf is masked out: it has probability 0, costs nothing, and smoothing spreads over the others
    (K is their number). As the label it costs infinity.

    Returns:
        [...].
    """
    logits = logits.astype(jnp.float32)
    probabilities = _probabilities(labels, logits)
    if label_smoothing:
        unmasked = (logits > -jnp.inf).astype(jnp.float32)
        share = label_smoothing / unmasked.sum(-1, keepdims=True)
        probabilities = (1 - label_smoothing) * probabilities + share * unmasked
    # Subtract the maximum first: for large logits the two terms would cancel.
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    # 0 log 0 = 0: replace the logit before multiplying, because a product's gradient would turn -inf into NaN.
    expected = (probabilities * jnp.where(probabilities == 0, 0, shifted)).sum(-1)
    return jnp.log(jnp.exp(shifted).sum(-1)) * probabilities.sum(-1) - expected


def focal(logits: Array, labels: Array, gamma: float = 2.0) -> Array:
    """Compute the focal loss over classes, -(1 - q)^gamma log q for the label's probability q (Lin et al. 2017, equation 4).

    Args:
        logits: [..., K].
        labels: class numbers [...], or probabilities p [..., K], over which the loss is averaged.
        gamma: 0 gives the cross entropy; the larger, the less count examples that are right already.

    Returns:
        [...].
    """
    log_q, probabilities = jax.nn.log_softmax(logits.astype(jnp.float32)), _probabilities(labels, logits)
    log_q = jnp.where(probabilities == 0, -1.0, log_q)  # a masked class, at -inf, would make a product NaN
    # Kept off 0, where a power below 1 has no gradient.
    left = jnp.maximum(-jnp.expm1(log_q), 1e-30)
    return -(probabilities * left**gamma * log_q).sum(-1)


def ordinal_cross_entropy(logits: Array, labels: Array) -> Array:
    """Compute the loss of K ranks as K - 1 yes-or-no questions "is it above rank k?", in nats (CORAL: Cao et al. 2020, eq. 4).

    Args:
        logits: [..., K - 1], of the probabilities P(y > k) for k = 0 ... K - 2.
        labels: ranks [...], 0 to K - 1.

    Returns:
        [...], the sum over the questions.
    """
    above = (labels[..., None] > _class_numbers(logits)).astype(jnp.float32)
    logits = logits.astype(jnp.float32)
    return -(above * jax.nn.log_sigmoid(logits) + (1 - above) * jax.nn.log_sigmoid(-logits)).sum(-1)


def two_logits(outputs: Array) -> Array:
    """Expand one logit z [..., 1], of class 1, to [0, z] [..., 2]: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)].

    So the cross entropy of the two is the binary cross entropy of z. More than one output is left as it is.
    """
    return jnp.concatenate([jnp.zeros_like(outputs), outputs], -1) if outputs.shape[-1] == 1 else outputs


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Compute the sigmoid cross entropy in nats: max(z, 0) - z y + log(1 + exp(-|z|)).

    Args:
        logits: [B] or [B, ...].
        targets: y of the same shape, 0 or 1 or a probability between.

    Returns:
        [B], the mean over all other axes.
    """
    targets = _same_shape(logits, targets)
    return _by_example(jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def squared_error(outputs: Array, targets: Array) -> Array:
    """Compute (output - target)^2, in the square of their unit: [B] from [B] or, by the mean over all other axes, [B, ...]."""
    return _by_example(jnp.square(outputs - _same_shape(outputs, targets)))


def absolute_error(outputs: Array, targets: Array) -> Array:
    """Compute |output - target|, in their unit: [B] from [B] or, by the mean over all other axes, [B, ...]."""
    return _by_example(jnp.abs(outputs - _same_shape(outputs, targets)))


def huber(outputs: Array, targets: Array, delta: float = 1.0) -> Array:
    """Compute e^2 / 2 for an error e within `delta`, delta (|e| - delta / 2) beyond (Huber 1964): [B] from [B] or [B, ...]."""
    error = jnp.abs(outputs - _same_shape(outputs, targets))
    within = jnp.minimum(error, delta)
    return _by_example(within * (error - within / 2))


def hinge(logits: Array, labels: Array) -> Array:
    """Compute the multiclass margin loss: max(0, 1 + max_{k != y} z_k - z_y) (Crammer and Singer 2001).

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


def accuracy(logits: Array, labels: Array) -> Array:
    """Return 1 where the largest logit (the first of equal ones) is the label's, else 0: [...] float32.

    Labels are class numbers [...], or class probabilities [..., K] of which the largest names the class.
    """
    return (logits.argmax(-1) == _classes(labels, logits)).astype(jnp.float32)


def binary_accuracy(logits: Array, targets: Array) -> Array:
    """Return 1 where logit > 0 and target > 1/2 agree, else 0: [B] from [B] or [B, ...]."""
    return _by_example(((logits > 0) == (_same_shape(logits, targets) > 0.5)).astype(jnp.float32))


def top_k_accuracy(logits: Array, labels: Array, k: int = 5) -> Array:
    """Return 1 where fewer than `k` classes come before the label's, else 0: [...] float32.

    A class comes before another by a larger logit, or by a smaller number where logits are equal, so that k = 1 is
    `accuracy`. A logit that is not a number makes its example wrong.
    """
    classes = _classes(labels, logits)[..., None]
    number = jnp.broadcast_to(_class_numbers(logits), logits.shape)
    own = jnp.where(number == classes, logits, -jnp.inf).max(-1, keepdims=True)
    before = (logits > own) | ((logits == own) & (number < classes))
    finite = ~jnp.isnan(logits).any(-1)
    return ((before.sum(-1) < k) & finite).astype(jnp.float32)


Score = Array | tuple[Array, Array]
"""A value for each example, [B, ...], which weighs as the batch's mask; or (value, weight)."""


def weighted_sums(scores: Mapping[str, Score], mask: Array | None = None) -> dict[str, tuple[Array, Array | float]]:
    """Sum value x weight, and the weights, of each score: added up over batches and devices they give an exact mean over a split.

    Args:
        scores: name -> value [B, ...], or (value, weight) with a weight of the value's shape or of its first axes. The
            scores of one batch may differ in shape: a loss by token beside a metric by sentence.
        mask: [B] or [B, T]: the weight of a plain value, 0 for padding (whatever the value there, even NaN). A value of
            fewer axes counts where any of its entries does; None weighs everything alike. An explicit weight counts
            only in rows that the mask does not leave out whole.

    Returns:
        name -> (sum, weight): a float32 scalar each; the weight is a Python number where it does not depend on the batch.

    Raises:
        ValueError: the shapes of a value and its weight do not fit.
    """
    return {name: _weighted_sum(name, score, mask) for name, score in scores.items()}


def _weighted_sum(name: str, score: Score, mask: Array | None) -> tuple[Array, Array | float]:
    value, weight = score if isinstance(score, tuple) else (score, mask)
    if weight is None:
        return value.sum(dtype=jnp.float32), float(math.prod(value.shape))
    if not isinstance(score, tuple):
        weight = _counted(weight, value.ndim)
    if weight.shape != value.shape[: weight.ndim]:
        raise ValueError(f"the score {name!r} has values of shape {value.shape} and a weight of shape {weight.shape}")
    weight = weight.astype(jnp.float32)
    if isinstance(score, tuple) and mask is not None:
        weight = weight * _counted(mask, 1).reshape(-1, *[1] * (weight.ndim - 1)).astype(jnp.float32)
    weight = jnp.broadcast_to(weight.reshape(weight.shape + (1,) * (value.ndim - weight.ndim)), value.shape)
    # Replace the value before multiplying: a NaN under a weight of 0 would pass through a product's gradient.
    value = jnp.where(weight != 0, value, 0)
    return (value * weight).sum(dtype=jnp.float32), weight.sum()


def _counted(mask: Array, ndim: int) -> Array:
    """Reduce the mask's axes beyond `ndim` to whether any entry counts."""
    return mask if mask.ndim <= ndim else (mask != 0).any(axis=tuple(range(ndim, mask.ndim)))


def mean_of(total: Array, weight: Array | float) -> Array:
    """Divide a weighted sum by its weight; 0 where nothing has weight, whose gradient is 0 too."""
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)


def _class_numbers(logits: Array) -> Array:
    return jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))


def _probabilities(labels: Array, logits: Array) -> Array:
    """Return [..., K] from class numbers [...] or from probabilities, which must have the logits' shape."""
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return _same_shape(logits, labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"class numbers of shape {labels.shape} do not fit logits of shape {logits.shape}")
    # A comparison rather than a look-up: its gradient is not a scatter, and it fuses with what uses it.
    return (labels[..., None] == _class_numbers(logits)).astype(logits.dtype)


def _classes(labels: Array, logits: Array) -> Array:
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return _same_shape(logits, labels).argmax(-1)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"class numbers of shape {labels.shape} do not fit logits of shape {logits.shape}")
    return labels


def _same_shape(outputs: Array, targets: Array) -> Array:
    """Return the targets as floats, of the outputs' shape; [B, 1] against [B] would silently make [B, B]."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs of shape {outputs.shape} and targets of shape {targets.shape} must be alike")
    return targets.astype(outputs.dtype)


def _by_example(values: Array) -> Array:
    return values.astype(jnp.float32).mean(axis=tuple(range(1, values.ndim)))
