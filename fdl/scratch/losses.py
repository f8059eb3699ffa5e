"""Losses: `loss(outputs, targets) -> (mean loss, cache)` and `loss_backward(dloss, cache) -> doutputs`.

The mean is over all examples, for element-wise losses over all elements, so gradients do not grow with the batch.
dloss is 1 where the loss is the end of the chain. Outputs and targets must have the same shape: NumPy would broadcast
logits [4, 1] with targets [4] to [4, 4] and average sixteen numbers without a word, so every loss raises ValueError there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.scratch.activations import sigmoid, softmax
from fdl.scratch.trees import Array, Cache, Tree

Loss = tuple[Callable[[Array, Array], tuple[Any, tuple]], Callable[[Any, tuple], Array]]
"""(loss, loss_backward)"""


def _check_shapes(name: str, outputs: Array, targets: Array) -> None:
    if np.shape(outputs) != np.shape(targets):
        raise ValueError(
            f"{name}: outputs {np.shape(outputs)} and targets {np.shape(targets)} differ; reshape one of them"
        )


def _check_labels(logits: Array, labels: Array) -> None:
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"softmax_cross_entropy: labels are {labels.dtype} {labels.shape}, expected integers {logits.shape[:-1]}; for "
            "one-hot rows use categorical_cross_entropy or labels.argmax(-1)"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[-1]:
        raise ValueError(
            f"softmax_cross_entropy: labels go from {labels.min()} to {labels.max()}, expected 0 to {logits.shape[-1] - 1}"
        )


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Cache]:
    """Compute L = mean over the examples of -log p[label], p = softmax(logits); log p = x - max - log sum exp(x - max).

    Args:
        logits: [..., K].
        labels: integers [...] in [0, K).

    Raises:
        ValueError: the labels have another shape, are no integers, or lie outside [0, K).
    """
    _check_labels(logits, labels)
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_p, labels[..., None], axis=-1)
    return -chosen.mean(), (logits, labels)


def softmax_cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dlogits = (p - onehot(label)) / N: the logarithm and the exponential cancel, no factor can vanish."""
    logits, labels = cache
    p, _ = softmax(logits)
    onehot = labels[..., None] == np.arange(logits.shape[-1])
    return dloss * (p - onehot) / labels.size


def binary_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of -t log p - (1 - t) log(1 - p), p = sigmoid(logit), as max(x, 0) - x t + log(1 + exp(-|x|)).

    Args:
        logits: any shape.
        targets: the same shape, 0 or 1 or a probability between.
    """
    _check_shapes("binary_cross_entropy", logits, targets)
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return losses.mean(), (logits, targets)


def binary_cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dlogits = (p - t) / N."""
    logits, targets = cache
    p, _ = sigmoid(logits)
    return dloss * (p - targets) / logits.size


def categorical_cross_entropy(p: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean over the examples of -sum_k t_k log p_k, for probabilities instead of logits.

    It is the form of the textbooks, with one-hot targets. `softmax_cross_entropy` has the same value and cannot overflow.

    Args:
        p: [..., K], each row a distribution; 0 where t is 0 costs nothing, 0 where t is not costs infinitely much.
        targets: [..., K], one-hot rows or distributions.
    """
    _check_shapes("categorical_cross_entropy", p, targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(targets > 0, targets * np.log(p), 0)
    return -terms.sum(axis=-1).mean(), (p, targets)


def categorical_cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dp = -t / p / N. Through `softmax_backward` it becomes (p - t) / N."""
    p, targets = cache
    safe = np.where(targets > 0, p, 1)
    return dloss * -targets / safe / (p.size // p.shape[-1])


def bernoulli_cross_entropy(p: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of -t log p - (1 - t) log(1 - p), for probabilities instead of logits.

    Args:
        p: any shape, strictly between 0 and 1.
        targets: the same shape, 0 or 1 or a probability between.
    """
    _check_shapes("bernoulli_cross_entropy", p, targets)
    return -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).mean(), (p, targets)


def bernoulli_cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dp = ((1 - t) / (1 - p) - t / p) / N."""
    p, targets = cache
    return dloss * ((1 - targets) / (1 - p) - targets / p) / p.size


def squared_error(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of (y - t)^2: its minimum is the mean of the targets."""
    _check_shapes("squared_error", y, targets)
    error = y - targets
    return (error * error).mean(), (error,)


def squared_error_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = 2 (y - t) / N."""
    (error,) = cache
    return dloss * 2 * error / error.size


def absolute_error(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of |y - t|: its minimum is the median, which outliers do not move."""
    _check_shapes("absolute_error", y, targets)
    error = y - targets
    return np.abs(error).mean(), (error,)


def absolute_error_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = sign(y - t) / N."""
    (error,) = cache
    return dloss * np.sign(error) / error.size


def hinge(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of max(0, 1 - t y), targets -1 or 1: nothing to pay beyond the margin. Cortes & Vapnik 1995."""
    _check_shapes("hinge", y, targets)
    margin = 1 - targets * y
    return np.maximum(margin, 0).mean(), (margin, targets)


def hinge_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = -t / N where 1 - t y > 0, else 0."""
    margin, targets = cache
    return dloss * -(targets * (margin > 0)) / margin.size


def huber(y: Array, targets: Array, delta: float = 1.0) -> tuple[Array, Cache]:
    """Compute L = mean of e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), e = y - t. Huber 1964."""
    _check_shapes("huber", y, targets)
    error = y - targets
    size = np.abs(error)
    losses = np.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
    return losses.mean(), (error, delta)


def huber_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = e / N, clipped to [-delta, delta] / N."""
    error, delta = cache
    return dloss * np.clip(error, -delta, delta) / error.size


def l2(params: Tree, strength: float) -> tuple[float, Tree]:
    """Return (penalty, grads): strength / 2 * the sum of squares of all kernels, and strength * kernel; biases go free.

    With strength = lambda / N this is the penalty lambda / (2 N) * sum of W^2 beside a mean over N examples.
    """
    penalty, grads = 0.0, {}
    for name, branch in params.items():
        if isinstance(branch, dict):
            part, grads[name] = l2(branch, strength)
        elif name == "kernel":
            part, grads[name] = 0.5 * strength * float(np.sum(branch * branch)), strength * branch
        else:
            part, grads[name] = 0.0, np.zeros_like(branch)
        penalty += part
    return penalty, grads
