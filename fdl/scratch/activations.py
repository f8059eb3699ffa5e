"""Activation functions: `f(x) -> (y, cache)` and `f_backward(dy, cache) -> dx`, any shape.

All but the softmax work element by element, so their chain rule is dx = dy * f'(x).
"""

from __future__ import annotations

import math

import numpy as np

from fdl.scratch.trees import Array, Cache


def linear(x: Array) -> tuple[Array, Cache]:
    """Compute y = x. Layers with nothing but this between them are together one linear map."""
    return x, None


def linear_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx = dy."""
    return dy


def relu(x: Array) -> tuple[Array, Cache]:
    """Compute y = max(x, 0). Nair & Hinton 2010."""
    return np.maximum(x, 0), x


def relu_backward(dy: Array, x: Array) -> Array:
    """Compute dx = dy where x > 0, else 0 (at the kink itself: 0)."""
    return dy * (x > 0)


def leaky_relu(x: Array, slope: float = 0.01) -> tuple[Array, Cache]:
    """Compute y = x where x >= 0, else slope * x: a negative unit still learns. Maas et al. 2013."""
    return np.where(x >= 0, x, slope * x), (x, slope)


def leaky_relu_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx = dy where x >= 0, else slope * dy."""
    x, slope = cache
    return np.where(x >= 0, dy, slope * dy)


def sigmoid(x: Array) -> tuple[Array, Cache]:
    """Compute y = 1 / (1 + exp(-x)) as (tanh(x/2) + 1) / 2, which no x overflows."""
    y = 0.5 * (np.tanh(0.5 * x) + 1)
    return y, y


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Compute dx = dy * y * (1 - y): at most dy / 4, hence gradients that vanish over many layers."""
    return dy * y * (1 - y)


def tanh(x: Array) -> tuple[Array, Cache]:
    """Compute y = tanh(x)."""
    y = np.tanh(x)
    return y, y


def tanh_backward(dy: Array, y: Array) -> Array:
    """Compute dx = dy * (1 - y^2)."""
    return dy * (1 - y * y)


def gelu(x: Array) -> tuple[Array, Cache]:
    """Compute y = x/2 * (1 + tanh(u)), u = sqrt(2/pi) * (x + 0.044715 x^3): x times the chance that a normal draw is below x.

    The tanh approximation of Hendrycks & Gimpel 2016, sec. 2, Flax's default too: NumPy has no erf for the exact one.
    """
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1 + t), (x, t)


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx = dy * [(1 + t)/2 + x/2 * (1 - t^2) * u'], u' = sqrt(2/pi) * (1 + 3 * 0.044715 x^2), t = tanh(u)."""
    x, t = cache
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du)


def softmax(x: Array) -> tuple[Array, Cache]:
    """Compute y_k = exp(x_k) / sum_j exp(x_j) over the last axis; x - max(x) gives the same y and cannot overflow."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    y = e / np.sum(e, axis=-1, keepdims=True)
    return y, y


def softmax_backward(dy: Array, y: Array) -> Array:
    """Compute dy_k/dx_j = y_k (1[k=j] - y_j), hence dx = y * (dy - sum_k dy_k y_k)."""
    return y * (dy - np.sum(dy * y, axis=-1, keepdims=True))
