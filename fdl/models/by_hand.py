"""Networks whose forward pass and gradient are those written by hand in `fdl.scratch`, in NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl.models.layers import data_axis, known, show_map
from fdl.numpy_call import numpy_call
from fdl.scratch import activations, network, pooling
from fdl.scratch.initialisers import he, random, xavier, zeros
from fdl.types import Array, Count, Fraction, Outputs, Probability, UserError

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "linear"]
Initializer = Literal["he", "xavier", "random", "zeros"]
"""See `fdl.scratch.initialisers`; "random" has a standard deviation of 0.01."""
_NUMBERS = (np.ndarray, np.generic)
_INITIALISERS = {"he": he, "xavier": xavier, "random": random, "zeros": zeros}


class HandMLP(nn.Module):
    """`MLP` by hand: for each width dense, batch normalisation (where on), activation, dropout; then the outputs.

    Attributes:
        widths: units of each hidden layer; none makes a linear model.
        outputs: units of the last layer (classes, or 1 for a single logit); 0: as many as the data ask for.
        activation: after each hidden layer.
        dropout: the share of hidden units set to zero in training.
        batch_norm: normalise before each activation.
        batch_norm_momentum: of the running averages.
        initializer: of every kernel; biases start at zero.
    """

    widths: tuple[Count, ...] = (128,)
    outputs: Outputs = 0
    activation: Activation = "relu"
    dropout: Probability = 0.0
    batch_norm: bool = False
    batch_norm_momentum: Fraction = 0.9
    initializer: Initializer = "he"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, ...] (flattened) -> [B, outputs]; needs a "dropout" key where `train` and `dropout`."""
        initialiser = _INITIALISERS[self.initializer]
        layers = [network.flatten()]
        for width in self.widths:
            layers += [
                network.dense(width, initialiser),
                *_norm(self, train),
                network.plain(*_activation(self.activation)),
            ]
            layers += [network.dropout(self.dropout)]
        return _apply(self, (*layers, network.dense(known(self.outputs, "outputs"), initialiser)), x, train)


class HandCNN(nn.Module):
    """`CNN` by hand: for each entry of `filters` convolution, 2x2 maximum pool, batch normalisation, ReLU; then dense.

    The pool comes first because it leaves the two after it a quarter of the numbers; without batch normalisation the
    order makes no difference to the values.

    Attributes:
        filters: filters of each convolution.
        kernel: side of the convolution kernels, in pixels.
        padding: of the convolutions: "valid" shrinks the map by `kernel` - 1, "same" keeps its size.
        hidden: units of each dense layer between the last pool and the outputs.
        outputs, dropout, batch_norm, batch_norm_momentum: as of `HandMLP`; kernels are He's.
    """

    filters: tuple[Count, ...] = (16, 32)
    kernel: Count = 3
    padding: Literal["valid", "same"] = "same"
    hidden: tuple[Count, ...] = (128,)
    outputs: Outputs = 0
    dropout: Probability = 0.0
    batch_norm: bool = False
    batch_norm_momentum: Fraction = 0.9

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Compute [B, H, W, C] -> [B, outputs]; needs a "dropout" key where `train` and `dropout`.

        Raises:
            ValueError: the map has grown smaller than what is to be done with it.
        """
        layers: list[network.Layer] = []
        side = min(x.shape[1:3])
        for filters in self.filters:
            left = side - (self.kernel - 1) * (self.padding == "valid")
            if left < 2:
                raise ValueError(
                    f"a {self.kernel}x{self.kernel} convolution and a 2x2 pool do not fit into a map with a side of {side}"
                )
            side = left // 2
            layers += [network.conv(filters, self.kernel, padding=self.padding)]
            layers += [network.plain(pooling.max_pool, pooling.max_pool_backward)]
            layers += [*_norm(self, train), network.plain(*network.RELU)]
        layers += [network.flatten()]
        for width in self.hidden:
            layers += [
                network.dense(width),
                *_norm(self, train),
                network.plain(*network.RELU),
                network.dropout(self.dropout),
            ]
        return _apply(self, (*layers, network.dense(known(self.outputs, "outputs"))), x, train)


def _norm(model: HandMLP | HandCNN, train: bool) -> list[network.Layer]:
    if not model.batch_norm:
        return []
    if train and data_axis():
        raise UserError(
            "batch normalisation by hand sees one device's part of the batch: use one device, --parallel=jit, or "
            "--set model.batch_norm=False"
        )
    return [network.batch_norm(model.batch_norm_momentum)]


def _activation(name: Activation) -> network.Activation:
    return getattr(activations, name), getattr(activations, f"{name}_backward")


class HandLayer(nn.Module):
    """Where one layer's arrays live, under the layer's name; what it computes is computed with the whole network."""

    @nn.compact
    def __call__(self, params: Any, stats: Any, output: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        """Declare the arrays, with their first values; return `output` for the table of layers to read."""
        for name, value in params.items():
            self.param(name, lambda _: value)
        for name, value in stats.items():
            self.variable("batch_stats", name, lambda: value)
        return output

    def put(self, stats: Any) -> None:
        for name, value in stats.items():
            self.put_variable("batch_stats", name, value)


def _apply(module: nn.Module, layers: network.Network, x: Array, train: bool) -> Array:
    """Apply the network to x [B, ...], inside the compact method of the module that it is."""
    x = x.astype(jnp.float32)
    start = network.init(np.random.default_rng(0), layers, x.shape[1:])  # for its shapes
    params, stats = jax.tree.map(jnp.zeros_like, start)
    if module.is_initializing() and module.is_mutable_collection("params"):
        seed = jax.random.bits(module.make_rng("params"), (4,), jnp.uint32)
        params, stats = numpy_call(
            lambda seed: network.init(np.random.default_rng(seed), layers, x.shape[1:]), _shapes(start), seed
        )
    held, row = {}, np.zeros((1, *x.shape[1:]), np.float32)
    for name, layer in zip(network.names(layers), layers, strict=True):
        row, _, _ = layer.forward(row, start[0].get(name, {}), start[1].get(name, {}), False, None)
        if name in params:
            output = jax.ShapeDtypeStruct((x.shape[0], *row.shape[1:]), row.dtype)
            held[name] = HandLayer(name=name)
            held[name](params[name], stats.get(name, {}), output)
    variables = module.variables
    params, stats = variables.get("params", {}), variables.get("batch_stats", {})
    if module.is_mutable_collection("intermediates"):
        _show_maps(module, layers, params, stats, x)
    # One run over zeros tells the shapes of all that follows.
    noted = _Noted()
    y, caches, _ = network.forward(layers, *start, np.zeros(x.shape, np.float32), train, cast(network.Rng, noted))
    keys = [module.make_rng("dropout") for _ in noted.asked]
    uniforms = [jax.random.uniform(key, shape) for key, shape in zip(keys, noted.asked, strict=True)]
    y, new_stats = _differentiable(layers, train, y, caches)(params, stats, x, uniforms)
    if train and not module.is_initializing():
        for name, value in new_stats.items():
            held[name].put(value)
    return y


def _show_maps(module: nn.Module, layers: network.Network, params: Any, stats: Any, x: Array) -> None:
    """Sow the output of every convolution as `CNN` does; each is computed anew, for this is requested for a few rows."""
    for place, (name, layer) in enumerate(zip(network.names(layers), layers, strict=True), 1):
        if layer.kind == "Conv":
            call = lambda params, stats, x, place=place: network.forward(layers[:place], params, stats, x)[0]  # noqa: E731
            rows = call(*jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), (params, stats, x)))
            maps = numpy_call(call, _shapes(rows), params, stats, x)
            show_map(module, f"{name}_map", maps)


def _differentiable(layers: network.Network, train: bool, y: np.ndarray, caches: list) -> Any:
    """Build (params, stats, x, uniforms) -> (y, new stats), with its gradient by hand.

    What the layers keep for their way back goes from the one NumPy call to the other as arrays that JAX holds, so that
    both calls are pure and the network runs forward once.

    Args:
        y, caches: of a run over zeros, for their shapes.
    """
    leaves, structure = jax.tree.flatten(caches)  # beside arrays: slices, shapes, flags, which depend on shapes alone

    def forward(params: Any, stats: Any, x: np.ndarray, uniforms: list) -> tuple[Any, Any, list]:
        y, caches, new = network.forward(layers, params, stats, x, train, cast(network.Rng, _Given(uniforms)))
        return y, new, _arrays(caches)

    def backward(kept: list, dy: np.ndarray) -> tuple[Any, Any]:
        arrays = iter(kept)
        filled = [next(arrays) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves]
        return network.backward(layers, dy, jax.tree.unflatten(structure, filled))

    @jax.custom_vjp
    def apply(params: Any, stats: Any, x: Array, uniforms: list) -> tuple[Array, Any]:
        call = lambda *args: forward(*args)[:2]  # noqa: E731
        return numpy_call(call, _shapes((y, stats)), params, stats, x, uniforms)

    def apply_forward(params: Any, stats: Any, x: Array, uniforms: list) -> tuple[tuple[Array, Any], Any]:
        y_made, new, kept = numpy_call(forward, _shapes((y, stats, _arrays(caches))), params, stats, x, uniforms)
        return (y_made, new), (kept, params, stats, x, uniforms)

    def apply_backward(held: Any, cotangents: tuple[Array, Any]) -> tuple[Any, ...]:
        kept, params, stats, x, uniforms = held
        dx, grads = numpy_call(backward, _shapes((x, params)), kept, cotangents[0])
        return grads, jax.tree.map(jnp.zeros_like, stats), dx, jax.tree.map(jnp.zeros_like, uniforms)

    apply.defvjp(apply_forward, apply_backward)
    return apply


def _arrays(caches: list) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(caches) if isinstance(leaf, _NUMBERS)]


def _shapes(tree: Any) -> Any:
    return jax.tree.map(jax.ShapeDtypeStruct.like, tree)


class _Noted:
    """A generator that draws nothing and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def random(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.asked.append(shape)
        return np.ones(shape, dtype)


class _Given:
    """A generator that hands out numbers drawn elsewhere, in order."""

    def __init__(self, uniforms: Iterable[np.ndarray]) -> None:
        self._uniforms = iter(uniforms)

    def random(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return next(self._uniforms)
