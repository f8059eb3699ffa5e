"""Recurrent cells and backpropagation through time.

A cell is `cell(carry, x, params) -> (carry, y, cache)` with x [B, D] and y [B, H]; the carry is h [B, H], for the LSTM
(c, h). On the way back `cell_backward(dcarry, dy, cache) -> (dcarry, dx, grads)`: the gradient that arrives from the
next step (dcarry) and the one from above (dy) meet in h. Parameters carry the names of Flax's cells: "ir" is the kernel
from the input to gate r, "hr" from the hidden state to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from fdl.scratch.activations import sigmoid, sigmoid_backward, tanh, tanh_backward
from fdl.scratch.initialisers import xavier
from fdl.scratch.layers import dense, dense_backward
from fdl.scratch.trees import Array, Cache, DType, Tree, add, zeros_like

Carry = Any


class RNNCache(NamedTuple):
    """What an RNN cell keeps: the new state h [B, H], and the caches of its dense layers."""

    h: Array
    layers: dict[str, Cache]


class GRUCache(NamedTuple):
    """What a GRU cell keeps, each [B, H]: the state before, the gates r and z, the candidate n, h W_hn + b_hn."""

    h_before: Array
    r: Array
    z: Array
    n: Array
    projected: Array
    layers: dict[str, Cache]


class LSTMCache(NamedTuple):
    """What an LSTM cell keeps, each [B, H]: the cell before and after, the gates i, f, o, the candidate g, tanh(c)."""

    c_before: Array
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    squashed: Array
    layers: dict[str, Cache]


class SequenceCache(NamedTuple):
    """What `sequence` keeps: the last carry, and the cell's cache at every step, the first step first.

    The cells of an LSTM at all steps: `np.stack([step.c for step in cache.steps], axis=1)`, [B, T, H].
    """

    carry: Carry
    steps: list[Any]


def rnn_cell(h: Array, x: Array, params: Tree) -> tuple[Carry, Array, Cache]:
    """Compute h' = tanh(x W_i + b_i + h W_h). Elman 1990.

    Args:
        h: [B, H].
        x: [B, D].
        params: "i" kernel [D, H], bias [H]; "h" kernel [H, H].
    """
    a, caches = _gates(h, x, params)
    h, _ = tanh(a["i"] + a["h"])
    return h, h, RNNCache(h, caches)


def rnn_cell_backward(dcarry: Array, dy: Array, cache: Cache) -> tuple[Array, Array, Tree]:
    """Send da = (dcarry + dy) * (1 - h'^2) to x through W_i and to the step before through W_h.

    T steps multiply by W_h^T T times: the gradient vanishes or explodes (Bengio, Simard & Frasconi 1994).
    """
    h, caches = cache
    da = tanh_backward(dcarry + dy, h)
    dx, dh, grads = _through_gates({"i": da, "h": da}, caches)
    return dh, dx, grads


def gru_cell(h: Array, x: Array, params: Tree) -> tuple[Carry, Array, Cache]:
    """Apply the GRU of Cho et al. 2014, in the form of Flax and cuDNN: the reset gate r acts on the projected state:

    r = sigmoid(x W_ir + b_ir + h W_hr)        z = sigmoid(x W_iz + b_iz + h W_hz)
    n = tanh(x W_in + b_in + r * (h W_hn + b_hn))
    h' = (1 - z) * n + z * h

    Args:
        h: [B, H].
        x: [B, D].
        params: "ir", "iz", "in" kernel [D, H], bias [H]; "hr", "hz" kernel [H, H]; "hn" kernel [H, H], bias [H].
    """
    a, caches = _gates(h, x, params)
    r, _ = sigmoid(a["ir"] + a["hr"])
    z, _ = sigmoid(a["iz"] + a["hz"])
    n, _ = tanh(a["in"] + r * a["hn"])
    new = (1 - z) * n + z * h
    return new, new, GRUCache(h, r, z, n, a["hn"], caches)


def gru_cell_backward(dcarry: Array, dy: Array, cache: Cache) -> tuple[Array, Array, Tree]:
    """Apply the chain rule from the last equation to the first; the path z * h hands the gradient back undiminished."""
    h, r, z, n, projected, caches = cache
    dnew = dcarry + dy
    da_z = sigmoid_backward(dnew * (h - n), z)
    da_n = tanh_backward(dnew * (1 - z), n)
    da_r = sigmoid_backward(da_n * projected, r)
    da = {"ir": da_r, "hr": da_r, "iz": da_z, "hz": da_z, "in": da_n, "hn": da_n * r}
    dx, dh, grads = _through_gates(da, caches)
    return dnew * z + dh, dx, grads


def lstm_cell(carry: tuple[Array, Array], x: Array, params: Tree) -> tuple[Carry, Array, Cache]:
    """Apply the LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000:

    i = sigmoid(x W_ii + h W_hi + b_hi)        f = sigmoid(x W_if + h W_hf + b_hf)
    g = tanh(x W_ig + h W_hg + b_hg)           o = sigmoid(x W_io + h W_ho + b_ho)
    c' = f * c + i * g                         h' = o * tanh(c')

    Args:
        carry: (c, h), each [B, H].
        x: [B, D].
        params: "ii", "if", "ig", "io" kernel [D, H]; "hi", "hf", "hg", "ho" kernel [H, H], bias [H].
    """
    c, h = carry
    a, caches = _gates(h, x, params)
    i, f, o = (sigmoid(a["i" + gate] + a["h" + gate])[0] for gate in "ifo")
    g, _ = tanh(a["ig"] + a["hg"])
    new_c = f * c + i * g
    squashed, _ = tanh(new_c)
    new_h = o * squashed
    return (new_c, new_h), new_h, LSTMCache(c, i, f, g, o, new_c, squashed, caches)


def lstm_cell_backward(dcarry: tuple[Array, Array], dy: Array, cache: Cache) -> tuple[tuple, Array, Tree]:
    """Compute dc = dc' + dh' * o * (1 - tanh(c')^2), which reaches the step before times f alone: there gradients live long."""
    c, i, f, g, o, _, squashed, caches = cache
    dc, dh = dcarry
    dh = dh + dy
    dc = dc + tanh_backward(dh * o, squashed)
    gates = {
        "i": sigmoid_backward(dc * g, i),
        "f": sigmoid_backward(dc * c, f),
        "g": tanh_backward(dc * i, g),
        "o": sigmoid_backward(dh * squashed, o),
    }
    dx, dh, grads = _through_gates({name: gates[name[1]] for name in caches}, caches)
    return (dc * f, dh), dx, grads


def _gates(h: Array, x: Array, params: Tree) -> tuple[dict[str, Array], dict[str, tuple]]:
    """Apply every dense layer of a cell, those named "i.." to x, those named "h.." to h: (outputs, caches)."""
    made = {name: dense(x if name[0] == "i" else h, params[name]) for name in params}
    return {name: a for name, (a, _) in made.items()}, {name: cache for name, (_, cache) in made.items()}


def _through_gates(da: dict[str, Array], caches: dict[str, tuple]) -> tuple[Array, Array, Tree]:
    """Go back through every gate's two dense layers: (dx, dh, grads), summed over the gates that x and h feed."""
    back = {name: dense_backward(da[name], cache) for name, cache in caches.items()}
    dx, dh = (reduce(np.add, [d for name, (d, _) in back.items() if name[0] == side]) for side in "ih")
    return dx, dh, {name: grads for name, (_, grads) in back.items()}


def sequence(cell: Callable, carry: Carry, x: Array, params: Tree) -> tuple[Carry, Array, Cache]:
    """Apply the cell over x [B, T, D] from left to right, the same parameters at every step.

    Returns:
        the last carry, the outputs of all steps [B, T, H], and the cache.
    """
    ys, caches = [], []
    for t in range(x.shape[1]):
        carry, y, cache = cell(carry, x[:, t], params)
        ys.append(y)
        caches.append(cache)
    return carry, np.stack(ys, axis=1), SequenceCache(carry, caches)


def sequence_backward(
    cell_backward: Callable, dy: Array, cache: tuple, dcarry: Carry | None = None
) -> tuple[Carry, Array, Tree]:
    """Backpropagate through time: steps in reverse, their gradients of the shared parameters added. Werbos 1990.

    Args:
        dy: [B, T, H], zero at steps whose output no loss reads.
        dcarry: what arrives at the last carry; nothing where it is None.

    Returns:
        the gradient of the first carry, dx [B, T, D], and grads as one cell's.
    """
    carry, caches = cache
    dcarry = zeros_like(carry) if dcarry is None else dcarry
    dxs, total = [], None
    for t in reversed(range(len(caches))):
        dcarry, dx, grads = cell_backward(dcarry, dy[:, t], caches[t])
        dxs.append(dx)
        total = grads if total is None else add(total, grads)
    return dcarry, np.stack(dxs[::-1], axis=1), total


def bidirectional(
    cell: Callable, carries: tuple[Carry, Carry], x: Array, params: tuple[Tree, Tree]
) -> tuple[tuple[Carry, Carry], Array, Cache]:
    """Apply a cell from left to right and another from right to left. Schuster & Paliwal 1997.

    Args:
        carries, params: of the two directions, (forward, backward).
        x: [B, T, D].

    Returns:
        the last carries (the backward one has seen step 0 last), outputs [B, T, 2H] with the forward half first, the cache.
    """
    ahead, ys, cache = sequence(cell, carries[0], x, params[0])
    back, reversed_ys, reversed_cache = sequence(cell, carries[1], x[:, ::-1], params[1])
    return (ahead, back), np.concatenate([ys, reversed_ys[:, ::-1]], axis=-1), (cache, reversed_cache)


def bidirectional_backward(
    cell_backward: Callable, dy: Array, cache: Cache
) -> tuple[tuple[Carry, Carry], Array, tuple[Tree, Tree]]:
    """Give each direction its half of dy [B, T, 2H]; x fed both, so dx is the sum of theirs."""
    ahead, back = np.split(dy, 2, axis=-1)
    dcarry, dx, grads = sequence_backward(cell_backward, ahead, cache[0])
    reversed_dcarry, reversed_dx, reversed_grads = sequence_backward(cell_backward, back[:, ::-1], cache[1])
    return (dcarry, reversed_dcarry), dx + reversed_dx[:, ::-1], (grads, reversed_grads)


RNN_GATES = {"i": True, "h": False}
GRU_GATES = {"ir": True, "iz": True, "in": True, "hr": False, "hz": False, "hn": True}
LSTM_GATES = {"ii": False, "if": False, "ig": False, "io": False, "hi": True, "hf": True, "hg": True, "ho": True}
"""The dense layers of each cell: name -> whether it has a bias (two that are summed need only one)."""


def init_cell(
    rng: np.random.Generator, gates: dict[str, bool], inputs: int, hidden: int, dtype: DType = np.float32
) -> Tree:
    """Draw a cell's parameters: for every gate a Xavier kernel, [D, H] from x ("i..") or [H, H] from h, and zero biases."""
    params: Tree = {}
    for name, biased in gates.items():
        params[name] = {"kernel": xavier(rng, (inputs if name[0] == "i" else hidden, hidden), dtype)}
        if biased:
            params[name]["bias"] = np.zeros(hidden, dtype)
    return params
