"""Losses: `loss(outputs, targets) -> (mean loss, cache)` and `loss_backward(dloss, cache) -> doutputs`.

The mean is over all examples, for element-wise losses over all elements, so gradients do not grow with the batch.
dloss is 1 where the loss is the end of the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.scratch.activations import sigmoid, softmax
from fdl.scratch.trees import Array, Cache, Tree

Loss = tuple[Callable[[Array, Array], tuple[Any, tuple]], Callable[[Any, tuple], Array]]
"""(loss, loss_backward)"""


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Cache]:
    """Compute L = mean over the examples of -log p[label], p = softmax(logits); log p = x - max - log sum exp(x - max).

    Args:
        logits: [..., K].
        labels: integers [...] in [0, K).
    """
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
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return losses.mean(), (logits, targets)


def binary_cross_entropy_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dlogits = (p - t) / N."""
    logits, targets = cache
    p, _ = sigmoid(logits)
    return dloss * (p - targets) / logits.size


def squared_error(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of (y - t)^2: its minimum is the mean of the targets."""
    error = y - targets
    return (error * error).mean(), (error,)


def squared_error_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = 2 (y - t) / N."""
    (error,) = cache
    return dloss * 2 * error / error.size


def absolute_error(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of |y - t|: its minimum is the median, which outliers do not move."""
    error = y - targets
    return np.abs(error).mean(), (error,)


def absolute_error_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = sign(y - t) / N."""
    (error,) = cache
    return dloss * np.sign(error) / error.size


def hinge(y: Array, targets: Array) -> tuple[Array, Cache]:
    """Compute L = mean of max(0, 1 - t y), targets -1 or 1: nothing to pay beyond the margin. Cortes & Vapnik 1995."""
    margin = 1 - targets * y
    return np.maximum(margin, 0).mean(), (margin, targets)


def hinge_backward(dloss: Any, cache: Cache) -> Array:
    """Compute dy = -t / N where 1 - t y > 0, else 0."""
    margin, targets = cache
    return dloss * -(targets * (margin > 0)) / margin.size


def huber(y: Array, targets: Array, delta: float = 1.0) -> tuple[Array, Cache]:
    """Compute L = mean of e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), e = y - t. Huber 1964."""
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
