"""Dense, embedding, dropout."""

from __future__ import annotations

import numpy as np

from fdl.scratch.trees import Array, Cache, Tree


def dense(x: Array, params: Tree) -> tuple[Array, Cache]:
    """Compute y = x W + b.

    Args:
        x: [..., in].
        params: "kernel" W [in, out] and, where there is one, "bias" b [out].

    Returns:
        y [..., out] and the cache.
    """
    y = x @ params["kernel"]
    if "bias" in params:
        y = y + params["bias"]
    return y, (x, params)


def dense_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Compute dW = x^T dy, db = sum of dy over the examples, dx = dy W^T. Rumelhart, Hinton & Williams 1986.

    Only this order fits the shapes: [in, B] [B, out], [out], [B, out] [out, in].

    Args:
        dy: [..., out].

    Returns:
        dx [..., in]; "kernel" [in, out] and "bias" [out].
    """
    x, params = cache
    x_NxI, dy_NxO = (
        x.reshape(-1, x.shape[-1]),
        dy.reshape(-1, dy.shape[-1]),
    )  # every leading axis is an axis of examples
    grads = {"kernel": x_NxI.T @ dy_NxO}
    if "bias" in params:
        grads["bias"] = dy_NxO.sum(axis=0)
    return dy @ params["kernel"].T, grads


def embedding(ids: Array, params: Tree) -> tuple[Array, Cache]:
    """Compute y = E[ids]: a dense layer on one-hot rows, without making them.

    Args:
        ids: integers [...] in [0, V).
        params: "embedding" E [V, D].

    Returns:
        y [..., D] and the cache.
    """
    return params["embedding"][ids], (ids, params["embedding"])


def embedding_backward(dy: Array, cache: Cache) -> tuple[None, Tree]:
    """Compute dE[v] = sum of dy over the places where ids = v. Integers have no gradient: dx is None."""
    ids, table = cache
    grad = np.zeros_like(table)
    np.add.at(grad, ids, dy)  # `grad[ids] += dy` would count an id that occurs twice only once
    return None, {"embedding": grad}


def dropout(x: Array, rate: float, uniforms: Array) -> tuple[Array, Array]:
    """Apply inverted dropout: y = x * keep / (1 - rate), so that E[y] = x and inference needs no scaling. In training only.

    Srivastava et al. 2014, "Dropout", section 10.

    Args:
        x: any shape.
        rate: the chance of each unit to be dropped, in [0, 1).
        uniforms: uniform draws in [0, 1), shaped as x; a unit is kept where its draw is at least `rate`.
    """
    return apply_dropout_mask(x, uniforms >= rate, rate)


def apply_dropout_mask(x: Array, keep: Array, rate: float) -> tuple[Array, Array]:
    """Compute y = x * keep / (1 - rate) for a mask that is given, True where a unit is kept: dropout without the drawing."""
    scale = keep * x.dtype.type(1 / (1 - rate))
    return x * scale, scale


def dropout_backward(dy: Array, scale: Array) -> Array:
    """Compute dx = dy * keep / (1 - rate): what was dropped learns nothing from this batch."""
    return dy * scale
