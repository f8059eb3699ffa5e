"""Attention: a weighted mean of values, whose weights say how well each key answers a query.

Masks are True where a key may be read. A query that may read none gets the mean of nothing, which is 0.
"""

from __future__ import annotations

import math

import numpy as np

from fdl.scratch.activations import softmax, softmax_backward, tanh, tanh_backward
from fdl.scratch.layers import dense, dense_backward
from fdl.scratch.trees import Array, Cache, Tree


def attention_weights(scores: Array, mask: Array | None = None) -> Array:
    """Compute the softmax of scores [..., Q, K] over the keys that `mask` allows, 0 for the others."""
    if mask is None:
        return softmax(scores)[0]
    allowed = np.broadcast_to(mask, scores.shape)
    weights = softmax(np.where(allowed, scores, -1e30))[0] * allowed
    return weights.astype(scores.dtype)


def dot_product_attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, Cache]:
    """Compute softmax(q k^T / sqrt(D)) v. Vaswani et al. 2017, eq. 1.

    The products of D unit normal pairs have the variance D; divided by sqrt(D) they do not saturate the softmax.

    Args:
        q: [..., Q, D].
        k: [..., K, D].
        v: [..., K, V].
        mask: [..., Q, K], True where query may read key; np.tri(T, dtype=bool) lets none look ahead.

    Returns:
        y [..., Q, V], and the cache; its first entry is the weights [..., Q, K].
    """
    scale = 1 / math.sqrt(q.shape[-1])
    weights = attention_weights(q @ k.swapaxes(-1, -2) * scale, mask)
    return weights @ v, (weights, q, k, v, scale)


def dot_product_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return (dq, dk, dv). Weights that the mask holds at 0 pass nothing on: softmax_backward multiplies by them."""
    weights, q, k, v, scale = cache
    dscores = softmax_backward(dy @ v.swapaxes(-1, -2), weights) * scale
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ dy


def additive_attention(q: Array, k: Array, v: Array, params: Tree, mask: Array | None = None) -> tuple[Array, Cache]:
    """Compute the scores s^T tanh(q W_q + k W_k + b) and the weighted mean of v. Bahdanau et al. 2015, appendix A.1.2.

    Args:
        q: [B, Q, Dq].
        k: [B, K, Dk].
        v: [B, K, V].
        params: "query" kernel [Dq, A]; "key" kernel [Dk, A], bias [A]; "score" kernel [A, 1].
        mask: [B, Q, K] or [B, 1, K].

    Returns:
        y [B, Q, V], and the cache; its first entry is the weights [B, Q, K].
    """
    a, a_cache = dense(q, params["query"])
    b, b_cache = dense(k, params["key"])
    hidden, _ = tanh(a[:, :, None] + b[:, None])  # [B, Q, K, A]
    scores, score_cache = dense(hidden, params["score"])
    weights = attention_weights(scores[..., 0], mask)
    return weights @ v, (weights, v, hidden, score_cache, a_cache, b_cache)


def additive_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array, Tree]:
    """Return (dq, dk, dv, grads). A query meets every key and a key every query: their gradients are sums over the other."""
    weights, v, hidden, score_cache, a_cache, b_cache = cache
    dscores = softmax_backward(dy @ v.swapaxes(-1, -2), weights)
    dhidden, score_grads = dense_backward(dscores[..., None], score_cache)
    dsum = tanh_backward(dhidden, hidden)
    dq, query_grads = dense_backward(dsum.sum(axis=2), a_cache)
    dk, key_grads = dense_backward(dsum.sum(axis=1), b_cache)
    return dq, dk, weights.swapaxes(-1, -2) @ dy, {"query": query_grads, "key": key_grads, "score": score_grads}


def multi_head_attention(
    x: Array, params: Tree, heads: int, mask: Array | None = None, memory: Array | None = None
) -> tuple[Array, Cache]:
    """Attend with several heads, each in D / heads dimensions of its own. Vaswani et al. 2017, section 3.2.2.

    Args:
        x: [B, Q, D]; D a multiple of `heads`.
        params: "query", "key", "value", "out", each kernel [D, D], bias [D].
        mask: [B or 1, Q, K].
        memory: [B, K, D], what is read; None: x itself.
    """
    memory = x if memory is None else memory
    parts, caches = {}, {}
    for name, source in (("query", x), ("key", memory), ("value", memory)):
        y, caches[name] = dense(source, params[name])
        parts[name] = _split_heads(y, heads)
    y, caches["attention"] = dot_product_attention(
        parts["query"], parts["key"], parts["value"], None if mask is None else mask[:, None]
    )
    y, caches["out"] = dense(_join_heads(y), params["out"])
    return y, (caches, heads, memory is x)


def multi_head_attention_backward(dy: Array, cache: Cache) -> tuple[Array, Array | None, Tree]:
    """Return (dx, dmemory, grads); dmemory is None where x attended to itself, its gradient is in dx then."""
    caches, heads, to_itself = cache
    grads: Tree = {}
    dy, grads["out"] = dense_backward(dy, caches["out"])
    dparts = dot_product_attention_backward(_split_heads(dy, heads), caches["attention"])
    dinputs = {}
    for name, dpart in zip(("query", "key", "value"), dparts, strict=True):
        dinputs[name], grads[name] = dense_backward(_join_heads(dpart), caches[name])
    dmemory = dinputs["key"] + dinputs["value"]
    return (dinputs["query"] + dmemory, None, grads) if to_itself else (dinputs["query"], dmemory, grads)


def _split_heads(x: Array, heads: int) -> Array:
    """[B, T, D] -> [B, heads, T, D / heads]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _join_heads(x: Array) -> Array:
    """[B, heads, T, D / heads] -> [B, T, D]."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
