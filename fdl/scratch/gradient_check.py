"""Gradient checking: is the gradient written by hand the derivative of the forward pass?

dL/dw is compared with (L(w + h) - L(w - h)) / 2h, number by number. The centred difference errs by about h^2 L'''/6
from its truncation and by about 1e-16 L / h from rounding; h = 1e-5 balances the two in float64, in float32 no h works.
Near a kink (ReLU at 0, a tie under a maximum pool) the two need not agree, and neither is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fdl.scratch.trees import Array, Tree, leaves, tree_map


def numerical_gradient(f: Callable[[Tree], float], tree: Tree, step: float = 1e-5) -> Tree:
    """Compute df/dw by centred differences for every number w of the tree, two calls of f each.

    Args:
        f: a scalar function of the tree; it must not keep what it is given.
        tree: float64 arrays, changed in place during the call and restored.
        step: h.

    Raises:
        TypeError: a leaf is not float64.
    """

    def gradient(leaf: Array) -> Array:
        if leaf.dtype != np.float64:
            raise TypeError(f"gradient checking needs float64, not {leaf.dtype}")
        numeric = np.zeros_like(leaf)
        for place in np.ndindex(leaf.shape):
            value = leaf[place]
            leaf[place] = value + step
            above = f(tree)
            leaf[place] = value - step
            below = f(tree)
            leaf[place] = value
            numeric[place] = (above - below) / (2 * step)
        return numeric

    return tree_map(gradient, tree)


def relative_difference(analytic: Tree, numeric: Tree) -> float:
    """Compute ||a - n|| / (||a|| + ||n||) over all numbers of both trees; 0 where both are zero.

    Below 1e-7 the gradient is right; above 1e-3 it is wrong; between, look for a kink or a step too large.
    """
    a = np.concatenate([leaf.ravel() for leaf in leaves(analytic)])
    n = np.concatenate([leaf.ravel() for leaf in leaves(tree_map(lambda _, other: other, analytic, numeric))])
    total = float(np.linalg.norm(a) + np.linalg.norm(n))
    return float(np.linalg.norm(a - n)) / total if total else 0.0


def check_gradient(f: Callable[[Tree], tuple[float, Tree]], tree: Tree, step: float = 1e-5) -> float:
    """Compare a function that returns (value, gradient) with finite differences of its value: the relative difference."""
    _, analytic = f(tree)
    return relative_difference(analytic, numerical_gradient(lambda tree: f(tree)[0], tree, step))


def check_layer(forward: Callable, backward: Callable, x: Array, params: Tree, rng: np.random.Generator) -> float:
    """Return the relative difference for one layer, `x` and `params` together.

    A layer has no scalar to differentiate, so the loss is L = sum of r * y with random r; then dy = r.

    Args:
        forward: (x, params) -> (y, cache).
        backward: (dy, cache) -> (dx, grads).
    """
    y, _ = forward(x, params)
    weights = rng.standard_normal(y.shape)

    def loss(tree: Tree) -> tuple[float, Tree]:
        y, cache = forward(tree["x"], tree["params"])
        dx, grads = backward(weights, cache)
        return float(np.sum(weights * y)), {"x": dx, "params": grads}

    return check_gradient(loss, {"x": x, "params": params})
