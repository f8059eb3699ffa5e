"""Optimizers as pure functions over trees of parameters, and learning-rate decay.

An optimizer is a pair (init, update): `state = init(params)`, then `params, state = update(params, grads, state)` at
every step. g is the gradient, w a parameter, lr the learning rate: a number, or a function of the step t = 0, 1, ...

Batch, mini-batch and stochastic gradient descent are one update fed with different batches (`batches` below): all
examples, some, or one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fdl.scratch.trees import Array, Tree, leaves, tree_map, zeros_like

Rate = float | Callable[[int], float]


class Optimizer(NamedTuple):
    """init(params) -> state; update(params, grads, state) -> (params, state).

    A state is a dict: "step", the number of updates made, and trees shaped as the parameters: "velocity" (momentum),
    "square" (RMSProp, Adam: the average of g^2), "mean" (Adam: the average of g).
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def _rate(rate: Rate, step: int) -> float:
    return rate(step) if callable(rate) else rate


def gradient_descent(learning_rate: Rate) -> Optimizer:
    """Build the update w <- w - lr * g."""

    def update(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
        lr = _rate(learning_rate, state["step"])
        return tree_map(lambda w, g: w - lr * g, params, grads), {"step": state["step"] + 1}

    return Optimizer(lambda params: {"step": 0}, update)


def momentum(learning_rate: Rate, beta: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Build v <- beta v + (1 - beta) g;  w <- w - lr * v: an average of gradients, where the zigzag cancels. Polyak 1964.

    Nesterov looks ahead: w <- w - lr * (beta v + (1 - beta) g) with the new v (Sutskever et al. 2013, section 2).
    Many libraries leave the factor (1 - beta) out: their lr is this one's times (1 - beta).
    """

    def update(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
        lr = _rate(learning_rate, state["step"])
        velocity = tree_map(lambda v, g: beta * v + (1 - beta) * g, state["velocity"], grads)
        ahead = tree_map(lambda v, g: beta * v + (1 - beta) * g, velocity, grads) if nesterov else velocity
        return tree_map(lambda w, v: w - lr * v, params, ahead), {"step": state["step"] + 1, "velocity": velocity}

    return Optimizer(lambda params: {"step": 0, "velocity": zeros_like(params)}, update)


def rmsprop(learning_rate: Rate, decay: float = 0.9, eps: float = 1e-8) -> Optimizer:
    """Build s <- decay s + (1 - decay) g^2;  w <- w - lr * g / (sqrt(s) + eps): a rate for each w. Hinton 2012."""

    def update(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
        lr = _rate(learning_rate, state["step"])
        square = tree_map(lambda s, g: decay * s + (1 - decay) * g * g, state["square"], grads)
        params = tree_map(lambda w, g, s: w - lr * g / (np.sqrt(s) + eps), params, grads, square)
        return params, {"step": state["step"] + 1, "square": square}

    return Optimizer(lambda params: {"step": 0, "square": zeros_like(params)}, update)


def adamw(
    learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-4
) -> Optimizer:
    """Build Adam with weight decay apart from the gradient. Loshchilov & Hutter 2019, algorithm 2.

    m <- b1 m + (1 - b1) g;  s <- b2 s + (1 - b2) g^2                    averages of g and g^2, which start at 0, so
    mhat = m / (1 - b1^(t+1));  shat = s / (1 - b2^(t+1))                the first ones are too small: corrected
    w <- w - lr * (mhat / (sqrt(shat) + eps) + weight_decay * w)
    """

    def update(params: Tree, grads: Tree, state: Tree) -> tuple[Tree, Tree]:
        step = state["step"] + 1
        lr = _rate(learning_rate, state["step"])
        mean = tree_map(lambda m, g: b1 * m + (1 - b1) * g, state["mean"], grads)
        square = tree_map(lambda s, g: b2 * s + (1 - b2) * g * g, state["square"], grads)

        def move(w: Array, m: Array, s: Array) -> Array:
            direction = (m / (1 - b1**step)) / (np.sqrt(s / (1 - b2**step)) + eps)
            return w - lr * (direction + weight_decay * w)

        return tree_map(move, params, mean, square), {"step": step, "mean": mean, "square": square}

    return Optimizer(lambda params: {"step": 0, "mean": zeros_like(params), "square": zeros_like(params)}, update)


def adam(learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Build AdamW without the decay. Kingma & Ba 2015, algorithm 1."""
    return adamw(learning_rate, b1, b2, eps, weight_decay=0.0)


def inverse_time_decay(rate: float, decay: float, interval: int = 1) -> Callable[[int], float]:
    """Compute lr_t = rate / (1 + decay * floor(t / interval))."""
    return lambda step: rate / (1 + decay * (step // interval))


def exponential_decay(rate: float, factor: float, interval: int) -> Callable[[int], float]:
    """Compute lr_t = rate * factor^(t / interval)."""
    return lambda step: rate * factor ** (step / interval)


def cosine_decay(rate: float, steps: int) -> Callable[[int], float]:
    """Compute lr_t = rate / 2 * (1 + cos(pi t / steps)), 0 from then on. Loshchilov & Hutter 2017, eq. 5."""
    return lambda step: 0.5 * rate * (1 + math.cos(math.pi * min(step, steps) / steps))


def clip_by_value(grads: Tree, limit: float) -> Tree:
    """Cut every number of the gradient to [-limit, limit]: recurrent nets' gradients may explode."""
    return tree_map(lambda g: np.clip(g, -limit, limit), grads)


def clip_by_norm(grads: Tree, limit: float) -> Tree:
    """Compute g * min(1, limit / ||g||), the norm over all numbers of the tree: the direction stays. Pascanu et al. 2013."""
    norm = math.sqrt(sum(float(np.sum(g * g)) for g in leaves(grads)))
    return tree_map(lambda g: g * min(1.0, limit / norm), grads) if norm else grads


def warmup(rate: Callable[[int], float], steps: int) -> Callable[[int], float]:
    """Compute lr_t = rate(t) * min(1, (t + 1) / steps): a linear start in front of any decay."""
    return lambda step: rate(step) * min(1.0, (step + 1) / steps)


def batches(rng: np.random.Generator, x: Array, targets: Array, batch_size: int) -> Iterator[tuple[Array, Array]]:
    """Yield one epoch in random order, batch_size rows at a time: all (batch), a few (mini-batch) or one (stochastic)."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        yield x[rows], targets[rows]
