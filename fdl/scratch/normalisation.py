"""Batch and layer normalisation: xhat = (x - mean) / sqrt(variance + eps), y = scale * xhat + bias.

They differ in what mean and variance are taken over: each feature over the batch, or each example over its features.
`unit_rows` scales each example to length 1 instead.
"""

from __future__ import annotations

import numpy as np

from fdl.scratch.trees import Array, Cache, Tree


def _normalised_backward(dxhat: Array, xhat: Array, inverse: Array, axes: tuple[int, ...]) -> Array:
    """Differentiate xhat = (x - mean) * inverse, where mean and inverse themselves depend on x:

    dx = inverse * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)), means over `axes`. Ioffe & Szegedy 2015, sec. 3.
    """
    along_xhat = (dxhat * xhat).mean(axis=axes, keepdims=True)
    return inverse * (dxhat - dxhat.mean(axis=axes, keepdims=True) - xhat * along_xhat)


def batch_norm(
    x: Array, params: Tree, stats: Tree, train: bool = False, momentum: float = 0.99, eps: float = 1e-5
) -> tuple[Array, Cache, Tree]:
    """Normalise over the batch. Ioffe & Szegedy 2015, algorithms 1 and 2; defaults and running averages as Flax's.

    In training mean and variance are the batch's, and the running ones move a little towards them,
    running = momentum * running + (1 - momentum) * batch (the variance divides by N, not N - 1).
    In inference they are the running ones, so an example's result does not depend on its company.

    Args:
        x: [..., C]; every axis but the last is averaged over.
        params: "scale" and "bias" [C].
        stats: running "mean" and "var" [C].

    Returns:
        y [..., C], the cache, and the new stats (the old ones unless training).
    """
    axes = tuple(range(x.ndim - 1))
    mean, variance = stats["mean"], stats["var"]
    if train:
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
        batch = {"mean": mean, "var": variance}
        stats = {name: momentum * stats[name] + (1 - momentum) * batch[name] for name in stats}
    inverse = 1 / np.sqrt(variance + eps)
    xhat = (x - mean) * inverse
    return params["scale"] * xhat + params["bias"], (xhat, inverse, params, train), stats


def batch_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Compute dscale = sum of dy * xhat, dbias = sum of dy, and dx through the batch's mean and variance.

    In inference mean and variance are constants: dx = dy * scale * inverse.
    """
    xhat, inverse, params, train = cache
    axes = tuple(range(dy.ndim - 1))
    grads = {"scale": (dy * xhat).sum(axis=axes), "bias": dy.sum(axis=axes)}
    dxhat = dy * params["scale"]
    return _normalised_backward(dxhat, xhat, inverse, axes) if train else dxhat * inverse, grads


def layer_norm(x: Array, params: Tree, eps: float = 1e-6) -> tuple[Array, Cache]:
    """Normalise over the last axis, the same in training and inference. Ba, Kiros & Hinton 2016, eq. 3 and 4.

    Args:
        x: [..., D].
        params: "scale" and "bias" [D].
    """
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt(variance + eps)
    xhat = (x - mean) * inverse
    return params["scale"] * xhat + params["bias"], (xhat, inverse, params)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Tree]:
    """Compute dscale and dbias as sums over the examples, dx over each example's own features."""
    xhat, inverse, params = cache
    axes = tuple(range(dy.ndim - 1))
    grads = {"scale": (dy * xhat).sum(axis=axes), "bias": dy.sum(axis=axes)}
    return _normalised_backward(dy * params["scale"], xhat, inverse, (-1,)), grads


def unit_rows(x: Array, eps: float = 1e-12) -> tuple[Array, Cache]:
    """Compute y = x / max(||x||, eps) over the last axis: rows of length 1; a row of zeros remains one.

    Args:
        x: [..., D].
    """
    length = np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)
    y = x / length
    return y, (y, length)


def unit_rows_backward(dy: Array, cache: Cache) -> Array:
    """Compute dx = (dy - y * sum(dy * y)) / ||x||: along x nothing changes, since the length is divided out."""
    y, length = cache
    return (dy - y * np.sum(dy * y, axis=-1, keepdims=True)) / length
