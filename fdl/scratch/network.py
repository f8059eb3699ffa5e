"""Layers composed into networks: the chain rule is nothing but walking the list backwards.

network = cnn(features=(8, 16), classes=10)
params, stats = init(np.random.default_rng(0), network, (28, 28, 1))
params, stats, state, losses = train(network, params, stats, adam(1e-3), batches(rng, images, labels, 64))
logits = predict(network, params, stats, test_images)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fdl.scratch import activations, convolution, layers, losses, normalisation, pooling
from fdl.scratch.initialisers import he
from fdl.scratch.optimizers import Optimizer
from fdl.scratch.trees import Array, Cache, DType, Tree, add

Rng = np.random.Generator
Batch = tuple[Array, Array]
Activation = tuple[Callable, Callable]
RELU: Activation = (activations.relu, activations.relu_backward)
SOFTMAX: losses.Loss = (losses.softmax_cross_entropy, losses.softmax_cross_entropy_backward)


class Layer(NamedTuple):
    """One entry of a network.

    Attributes:
        kind: parameters are named "{kind}_{number}" as in a compact Linen module.
        init: (rng, size of x's last axis, dtype) -> (params, stats).
        forward: (x, params, stats, train, rng) -> (y, cache, stats).
        backward: (dy, cache) -> (dx, grads).
    """

    kind: str
    init: Callable[[Rng, int, DType], tuple[Tree, Tree]]
    forward: Callable[..., tuple[Array, Any, Tree]]
    backward: Callable[[Array, Any], tuple[Array, Tree]]


Network = tuple[Layer, ...]


def dense(features: int, initialiser: Callable = he) -> Layer:
    """Build a dense layer [..., in] -> [..., features]."""
    return _weighted("Dense", (features,), initialiser, layers.dense, layers.dense_backward)


def conv(features: int, kernel: int = 3, stride: int = 1, padding: convolution.Padding = "same") -> Layer:
    """Build a convolution [B, H, W, C] -> [B, Ho, Wo, features]."""
    forward = partial(convolution.conv, stride=stride, padding=padding)
    return _weighted("Conv", (kernel, kernel, features), he, forward, convolution.conv_backward)


def _weighted(kind: str, shape: tuple[int, ...], initialiser: Callable, f: Callable, f_backward: Callable) -> Layer:
    """Build a layer with a kernel [*window, in, features], where `shape` is (*window, features), and a bias [features]."""
    *window, features = shape

    def start(rng: Rng, inputs: int, dtype: DType) -> tuple[Tree, Tree]:
        kernel = initialiser(rng, (*window, inputs, features), dtype)
        return {"kernel": kernel, "bias": np.zeros(features, dtype)}, {}

    return Layer(kind, start, lambda x, params, stats, train, rng: (*f(x, params), stats), f_backward)


def batch_norm(momentum: float = 0.99) -> Layer:
    """Normalise every feature; its running statistics are the network's `stats`."""

    def start(rng: Rng, inputs: int, dtype: DType) -> tuple[Tree, Tree]:
        ones: Array = np.ones(inputs, dtype)
        return {"scale": ones, "bias": 0 * ones}, {"mean": 0 * ones, "var": ones}

    def call(x: Array, params: Tree, stats: Tree, train: bool, rng: Rng | None) -> tuple[Array, Cache, Tree]:
        return normalisation.batch_norm(x, params, stats, train, momentum)

    return Layer("BatchNorm", start, call, normalisation.batch_norm_backward)


def plain(f: Callable, f_backward: Callable) -> Layer:
    """Build a layer without parameters from x -> (y, cache) and (dy, cache) -> dx: an activation, a pool, ..."""
    return Layer(
        kind="Plain",
        init=lambda rng, inputs, dtype: ({}, {}),
        forward=lambda x, params, stats, train, rng: (*f(x), stats),
        backward=lambda dy, cache: (f_backward(dy, cache), {}),
    )


def dropout(rate: float) -> Layer:
    """Drop units in training, do nothing in inference."""

    def call(x: Array, params: Tree, stats: Tree, train: bool, rng: Rng | None) -> tuple[Array, Any, Tree]:
        if not train or rate == 0:
            return x, np.ones((), x.dtype), stats
        if rng is None:
            raise ValueError("dropout in training needs a generator: pass rng")
        return *layers.dropout(x, rate, rng.random(x.shape, np.float32)), stats

    return plain(activations.linear, layers.dropout_backward)._replace(forward=call)


def flatten() -> Layer:
    """Build a layer [B, ...] -> [B, the product of the rest]."""
    return plain(lambda x: (x.reshape(len(x), -1), x.shape), lambda dy, shape: dy.reshape(shape))


def mlp(
    widths: tuple[int, ...],
    classes: int,
    activation: Activation = RELU,
    initialiser: Callable = he,
    dropout_rate: float = 0.0,
) -> Network:
    """Build a flattening, a dense layer and its activation for every width, then the logits."""
    hidden: list[Layer] = []
    for width in widths:
        hidden += [dense(width, initialiser), plain(*activation), dropout(dropout_rate)]
    return (flatten(), *hidden, dense(classes, initialiser))


def cnn(features: tuple[int, ...], classes: int, hidden: int | None = None, normalise: bool = False) -> Network:
    """Build 3x3 convolution, ReLU, 2x2 maximum pool for each of `features`; then `hidden` units, if any; the logits."""
    network: list[Layer] = []
    for count in features:
        network += [conv(count), *([batch_norm()] if normalise else []), plain(*RELU)]
        network += [plain(pooling.max_pool, pooling.max_pool_backward)]
    network += [flatten(), *([dense(hidden), plain(*RELU)] if hidden else [])]
    return (*network, dense(classes))


def names(network: Network) -> list[str]:
    """Return each layer's name: its kind and how many of that kind come before it."""
    kinds = [layer.kind for layer in network]
    return [f"{kind}_{kinds[:place].count(kind)}" for place, kind in enumerate(kinds)]


def init(rng: Rng, network: Network, shape: tuple[int, ...], dtype: DType = np.float32) -> tuple[Tree, Tree]:
    """Return (params, stats) for inputs of the given shape (without the batch), found by sending one row of zeros through."""
    params: Tree = {}
    stats: Tree = {}
    x: Array = np.zeros((1, *shape), dtype)
    for name, layer in zip(names(network), network, strict=True):
        made, running = layer.init(rng, x.shape[-1], dtype)
        x, _, _ = layer.forward(x, made, running, False, None)
        params |= {name: made} if made else {}
        stats |= {name: running} if running else {}
    return params, stats


def forward(
    network: Network, params: Tree, stats: Tree, x: Array, train: bool = False, rng: Rng | None = None
) -> tuple[Array, Cache, Tree]:
    """Return (outputs, the caches of all layers, the new stats)."""
    caches: list[Cache] = []
    new_stats: Tree = {}
    for name, layer in zip(names(network), network, strict=True):
        x, cache, running = layer.forward(x, params.get(name, {}), stats.get(name, {}), train, rng)
        caches.append(cache)
        new_stats |= {name: running} if running else {}
    return x, caches, new_stats


def backward(network: Network, dy: Array, caches: list) -> tuple[Array, Tree]:
    """Return (dx, grads) from the gradient of the outputs: the layers from the last to the first."""
    grads: Tree = {}
    for name, layer, cache in reversed(list(zip(names(network), network, caches, strict=True))):
        dy, made = layer.backward(dy, cache)
        grads |= {name: made} if made else {}
    return dy, grads


def loss_and_gradient(
    network: Network,
    params: Tree,
    stats: Tree,
    batch: Batch,
    loss: losses.Loss = SOFTMAX,
    l2: float = 0,
    rng: Rng | None = None,
) -> tuple[float, Tree, Tree]:
    """Return (loss with its L2 penalty, grads, new stats) of one batch (x, targets) in training."""
    x, targets = batch
    outputs, caches, stats = forward(network, params, stats, x, train=True, rng=rng)
    value, cache = loss[0](outputs, targets)
    _, grads = backward(network, loss[1](1.0, cache), caches)
    if l2:
        penalty, shrink = losses.l2(params, l2)
        value, grads = value + penalty, add(shrink, grads)
    return float(value), grads, stats


def train(
    network: Network,
    params: Tree,
    stats: Tree,
    optimizer: Optimizer,
    feed: Iterable[Batch],
    state: Tree = None,
    **options: Any,
) -> tuple[Tree, Tree, Tree, list[float]]:
    """Take one step for every batch of the feed; options (loss, l2, rng) are those of `loss_and_gradient`.

    Returns:
        params, stats, the optimizer's state (to go on with), and each batch's loss before its step.
    """
    state = optimizer.init(params) if state is None else state
    history = []
    for batch in feed:
        value, grads, stats = loss_and_gradient(network, params, stats, batch, **options)
        params, state = optimizer.update(params, grads, state)
        history.append(value)
    return params, stats, state, history


def predict(network: Network, params: Tree, stats: Tree, x: Array, batch_size: int = 256) -> Array:
    """Compute outputs in inference, for any number of rows of 1 or more."""
    parts = (x[start : start + batch_size] for start in range(0, len(x), batch_size))
    return np.concatenate([forward(network, params, stats, part)[0] for part in parts])


def layer_outputs(network: Network, params: Tree, stats: Tree, x: Array) -> dict[str, Array]:
    """Compute what every layer gives in inference, by its name (see `names`), the first layer first."""
    found = {}
    for name, layer in zip(names(network), network, strict=True):
        x, _, _ = layer.forward(x, params.get(name, {}), stats.get(name, {}), False, None)
        found[name] = x
    return found


def predict_probabilities(network: Network, params: Tree, stats: Tree, x: Array) -> Array:
    """Compute the softmax of the outputs, [N, K]."""
    return activations.softmax(predict(network, params, stats, x))[0]


def predict_classes(network: Network, params: Tree, stats: Tree, x: Array) -> Array:
    """Return the class of the largest output, [N]."""
    return np.argmax(predict(network, params, stats, x), axis=-1)


def accuracy(classes: Array, labels: Array) -> float:
    """Compute the share of classes [N] that equal their labels [N].

    Raises:
        ValueError: the shapes differ.
    """
    if classes.shape != labels.shape:
        raise ValueError(f"accuracy: classes {classes.shape} and labels {labels.shape} differ in shape")
    return float(np.mean(classes == labels))


def sample(rng: Rng, logits: Array, temperature: float = 1.0) -> Array:
    """Draw a class for every row of logits [N, K] from softmax(logits / temperature): [N]. Near 0 it is the argmax.

    The largest of logits / temperature + Gumbel noise is such a draw (Gumbel 1954).
    """
    return np.argmax(logits / temperature + rng.gumbel(size=logits.shape), axis=-1)
