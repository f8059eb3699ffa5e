"""The twin by hand and Flax/Optax, each the other's oracle: values and gradients with the same weights.

`python tests/scratch/test_scratch_oracle.py` prints the table of docs/foundations.md.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fdl.scratch import (
    activations,
    convolution,
    initialisers,
    layers,
    losses,
    network,
    normalisation,
    optimizers,
    pooling,
    recurrent,
    residual,
)
from fdl.scratch.trees import Tree, tree_map

DTYPES = [np.float64, np.float32]
BATCH, SIZE, CHANNELS = 4, 7, 3


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        foundation, scratch, reference: what is compared, its name here and there.
        run: (rng, dtype) -> (our results, theirs), two trees of the same names.
        single: the limit in float32.
    """

    foundation: str
    scratch: str
    reference: str
    run: Callable[[np.random.Generator, type], tuple[Tree, Tree]]
    single: float = 1e-5


def normal(rng, *shape):
    return rng.standard_normal(shape)


def cast(tree: Tree, dtype: type) -> Tree:
    return tree_map(lambda leaf: np.asarray(leaf, dtype), tree)


def compare(forward, backward, reference, x: Tree, params: Tree, rng, dtype) -> tuple[Tree, Tree]:
    """Values and gradients of x and params under a random gradient of the outputs.

    forward: (x, params) -> (y, cache) or (y, cache, more); reference: (x, params) -> y or (y, more).
    """
    x, params = cast(x, dtype), cast(params, dtype)
    y, cache, *more = forward(x, params)
    dy = cast(tree_map(lambda leaf: rng.standard_normal(np.shape(leaf)), y), dtype)
    dx, grads = backward(dy, cache)

    @jax.jit
    def both(x, params, dy):
        y, pull, *more = jax.vjp(reference, x, params, has_aux=bool(more_here))
        return y, *pull(dy), *more

    more_here = more
    names = ("y", "dx", "grads", "more")
    theirs = dict(zip(names, both(x, params, dy), strict=False))
    return dict(zip(names, (y, dx, grads, *more), strict=False)), theirs


def activation(name: str, reference: Callable) -> Case:
    f, back = getattr(activations, name), getattr(activations, name + "_backward")

    def run(rng, dtype):
        x = np.concatenate([2 * normal(rng, 5, 8), np.zeros((1, 8))])  # zeros: both sides' choice at a kink
        forward, backward = lambda x, _: f(x), lambda dy, cache: (back(dy, cache), {})
        return compare(forward, backward, lambda x, _: reference(x), x, {}, rng, dtype)

    return Case(name.replace("_", " "), f"activations.{name}", f"jax.nn.{name}", run)


def dense(rng, dtype):
    params = {"kernel": normal(rng, 5, 6), "bias": normal(rng, 6)}
    reference = lambda x, params: nn.Dense(6).apply({"params": params}, x)  # noqa: E731
    return compare(layers.dense, layers.dense_backward, reference, normal(rng, 3, BATCH, 5), params, rng, dtype)


def embedding(rng, dtype):
    ids, params = rng.integers(0, 6, (BATCH, 5)), {"embedding": normal(rng, 6, 3)}
    backward = lambda dy, cache: ({}, layers.embedding_backward(dy, cache)[1])  # noqa: E731
    reference = lambda _, params: nn.Embed(6, 3).apply({"params": params}, ids)  # noqa: E731
    return compare(lambda _, params: layers.embedding(ids, params), backward, reference, {}, params, rng, dtype)


def dropout(rng, dtype):
    reference = lambda x, _: nn.Dropout(0.3, deterministic=False).apply({}, x, rngs={"dropout": jax.random.key(0)})  # noqa: E731
    shape = (BATCH, 30)
    uniforms = np.where(reference(jnp.ones(shape, dtype), {}) > 0, 0.999, 0.0)  # keep what Flax keeps
    backward = lambda dy, scale: (layers.dropout_backward(dy, scale), {})  # noqa: E731
    return compare(
        lambda x, _: layers.dropout(x, 0.3, uniforms), backward, reference, normal(rng, *shape), {}, rng, dtype
    )


def convolve(stride: int, padding: Any, bias: bool = True) -> Callable:
    def run(rng, dtype):
        params = {"kernel": normal(rng, 3, 2, CHANNELS, 5)} | ({"bias": normal(rng, 5)} if bias else {})
        named = padding.upper() if isinstance(padding, str) else padding
        module = nn.Conv(5, (3, 2), strides=stride, padding=named, use_bias=bias)
        forward = partial(convolution.conv, stride=stride, padding=padding)
        reference = lambda x, params: module.apply({"params": params}, x)  # noqa: E731
        x = normal(rng, BATCH, SIZE, SIZE + 1, CHANNELS)
        return compare(forward, convolution.conv_backward, reference, x, params, rng, dtype)

    return run


def pool(name: str, window: int, stride: int, padding: Any) -> Callable:
    def run(rng, dtype):
        f, back = getattr(pooling, name), getattr(pooling, name + "_backward")
        named = padding.upper() if isinstance(padding, str) else ((padding, padding),) * 2
        theirs = partial(
            nn.max_pool if name == "max_pool" else nn.avg_pool,
            window_shape=(window, window),
            strides=(stride, stride),
            padding=named,
        )
        x = np.round(2 * normal(rng, BATCH, SIZE, SIZE + 1, CHANNELS))  # whole numbers: many ties
        forward, backward = lambda x, _: f(x, window, stride, padding), lambda dy, cache: (back(dy, cache), {})
        return compare(forward, backward, lambda x, _: theirs(x), x, {}, rng, dtype)

    return run


def global_average(rng, dtype):
    backward = lambda dy, cache: (pooling.global_average_pool_backward(dy, cache), {})  # noqa: E731
    forward = lambda x, _: pooling.global_average_pool(x)  # noqa: E731
    x = normal(rng, BATCH, SIZE, SIZE, CHANNELS)
    return compare(forward, backward, lambda x, _: x.mean(axis=(1, 2)), x, {}, rng, dtype)


def batch_norm(train: bool) -> Callable:
    def run(rng, dtype):
        params = {"scale": normal(rng, CHANNELS), "bias": normal(rng, CHANNELS)}
        stats = cast({"mean": normal(rng, CHANNELS), "var": 0.5 + rng.random(CHANNELS)}, dtype)
        forward = lambda x, params: normalisation.batch_norm(x, params, stats, train)  # noqa: E731

        def reference(x, params):
            module, variables = nn.BatchNorm(use_running_average=not train), {"params": params, "batch_stats": stats}
            y, updated = module.apply(variables, x, mutable=["batch_stats"])
            return y, updated["batch_stats"]

        x = 1 + normal(rng, BATCH, SIZE, SIZE, CHANNELS)
        return compare(forward, normalisation.batch_norm_backward, reference, x, params, rng, dtype)

    return run


def layer_norm(rng, dtype):
    params = {"scale": normal(rng, 6), "bias": normal(rng, 6)}
    reference = lambda x, params: nn.LayerNorm().apply({"params": params}, x)  # noqa: E731
    forward, backward = normalisation.layer_norm, normalisation.layer_norm_backward
    return compare(forward, backward, reference, normal(rng, BATCH, 5, 6), params, rng, dtype)


def recurrence(kind: str, module: type[nn.RNNCellBase], gates: dict[str, bool]) -> Callable:
    def run(rng, dtype):
        cell, cell_backward = getattr(recurrent, kind + "_cell"), getattr(recurrent, kind + "_cell_backward")
        params = recurrent.init_cell(rng, gates, 3, 5, np.float64)
        params = tree_map(lambda leaf: leaf + 0.3 * normal(rng, *leaf.shape), params)
        start = (normal(rng, BATCH, 5), normal(rng, BATCH, 5)) if kind == "lstm" else normal(rng, BATCH, 5)

        def forward(x, params):
            carry, y, cache = recurrent.sequence(cell, x["carry"], x["x"], params)
            return {"carry": carry, "y": y}, cache

        def backward(dy, cache):
            dcarry, dx, grads = recurrent.sequence_backward(cell_backward, dy["y"], cache, dy["carry"])
            return {"carry": dcarry, "x": dx}, grads

        def reference(x, params):
            scan = nn.RNN(module(5), return_carry=True)
            carry, y = scan.apply({"params": {"cell": params}}, x["x"], initial_carry=x["carry"])
            return {"carry": carry, "y": y}

        x = {"carry": start, "x": normal(rng, BATCH, 8, 3)}
        return compare(forward, backward, reference, x, params, rng, dtype)

    return run


class ConvNorm(nn.Module):
    features: int
    kernel: int
    stride: int
    padding: int

    @nn.compact
    def __call__(self, x, train):
        window = (self.kernel, self.kernel)
        x = nn.Conv(self.features, window, self.stride, self.padding, use_bias=False, name="conv")(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)


class Bottleneck(nn.Module):
    features: int
    stride: int
    projection: bool

    @nn.compact
    def __call__(self, x, train):
        y = nn.relu(ConvNorm(self.features, 1, 1, 0, name="reduce")(x, train))
        y = nn.relu(ConvNorm(self.features, 3, self.stride, 1, name="spatial")(y, train))
        y = ConvNorm(4 * self.features, 1, 1, 0, name="expand")(y, train)
        if self.projection:
            x = ConvNorm(4 * self.features, 1, self.stride, 0, name="shortcut")(x, train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    stages: tuple[int, ...]
    width: int
    classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(ConvNorm(self.width, 7, 2, 3, name="stem")(x, train))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = Bottleneck(self.width * 2**stage, stride, block == 0, name=name)(x, train)
        return nn.Dense(self.classes, name="head")(x.mean(axis=(1, 2)))


def residual_case(part: str | None, train: bool, stride: int = 1) -> Callable:
    """A block of a small network, or the whole of it where `part` is None."""

    def run(rng, dtype):
        params, stats = residual.init_resnet(rng, (2, 1), width=4, classes=3, dtype=np.float64)
        x = normal(rng, BATCH, 32, 32, 3)
        if part:
            params, stats, x = params[part], stats[part], normal(rng, BATCH, 8, 8, 16)
            module = Bottleneck(len(params["reduce"]["norm"]["bias"]), stride, "shortcut" in params)
            forward = lambda x, params: residual.bottleneck(x, params, stats, stride, train)  # noqa: E731
        else:
            module = ResNet((2, 1), 4, 3)
            forward = lambda x, params: residual.resnet(x, params, stats, train)  # noqa: E731
        params = tree_map(lambda leaf: leaf + 0.1 * normal(rng, *leaf.shape), params)
        stats = cast(stats, dtype)

        def reference(x, params):
            variables = {"params": params, "batch_stats": stats}
            y, updated = module.apply(variables, x, train, mutable=["batch_stats"])
            return y, updated["batch_stats"]

        backward = residual.bottleneck_backward if part else residual.resnet_backward
        return compare(forward, backward, reference, x, params, rng, dtype)

    return run


def loss(name: str, reference: Callable, targets: Callable, reference_name: str) -> Case:
    f, back = getattr(losses, name), getattr(losses, name + "_backward")

    def run(rng, dtype):
        t = targets(rng)
        t = t if t.dtype.kind == "i" else t.astype(dtype)
        forward, backward = lambda y, _: f(y, t), lambda dy, cache: (back(dy, cache), {})
        return compare(forward, backward, lambda y, _: reference(y, t).mean(), 2 * normal(rng, 6, 4), {}, rng, dtype)

    return Case(name.replace("_", " "), f"losses.{name}", reference_name, run)


def optimise(ours: optimizers.Optimizer, theirs: optax.GradientTransformation, steps: int = 50) -> Callable:
    """Both descend one bumpy bowl with noise; every step's parameters are compared."""

    def run(rng, dtype):
        start = cast({"a": normal(rng, 3, 4), "b": {"c": normal(rng, 5)}}, dtype)
        noise = [cast(tree_map(lambda leaf: normal(rng, *leaf.shape), start), dtype) for _ in range(steps)]
        pull = lambda w, n: w + (0.5 * n).astype(n.dtype)  # noqa: E731  # the gradient of w^2 / 2, and noise
        params, state, path = start, ours.init(start), []
        for n in noise:
            params, state = ours.update(params, tree_map(pull, params, n), state)
            path.append(params)

        @jax.jit
        def step(params, state, n):
            updates, state = theirs.update(jax.tree.map(lambda w, n: w + 0.5 * n, params, n), state, params)
            return optax.apply_updates(params, updates), state

        params, state, their_path = jax.tree.map(jnp.asarray, start), theirs.init(start), []
        for n in noise:
            params, state = step(params, state, n)
            their_path.append(params)
        return tuple(path), tuple(their_path)

    return run


def decay(name: str, ours: Callable, theirs: Callable) -> Case:
    """Gradient descent at a falling rate; from an integer count Optax computes it in float32, whatever the rest is."""
    reference = optax.sgd(lambda count: theirs(count.astype(float)))
    run = optimise(optimizers.gradient_descent(ours), reference)
    return Case(
        f"{name} decay, 50 steps", f"optimizers.{name}_decay", "optax." + theirs.__qualname__.split(".")[0], run
    )


def pools() -> list[Case]:
    cases = []
    for name, theirs in (("max_pool", "nn.max_pool"), ("average_pool", "nn.avg_pool")):
        for window, stride, padding in ((2, 2, "valid"), (3, 2, "same"), (3, 2, 1)):
            label = f"{name.replace('_', ' ')} {window}x{window}, stride {stride}, padding {padding}"
            cases.append(Case(label, f"pooling.{name}", theirs, pool(name, window, stride, padding)))
    return cases


def signs(rng):
    return rng.choice([-1.0, 1.0], (6, 4))


def real(rng):
    return normal(rng, 6, 4)


CASES = [
    Case("dense", "layers.dense", "nn.Dense", dense),
    Case("embedding", "layers.embedding", "nn.Embed", embedding),
    Case("dropout", "layers.dropout", "nn.Dropout", dropout),
    activation("linear", lambda x: x)._replace(reference="identity"),
    activation("relu", nn.relu),
    activation("leaky_relu", nn.leaky_relu),
    activation("sigmoid", nn.sigmoid),
    activation("tanh", nn.tanh),
    activation("gelu", nn.gelu),
    activation("softmax", nn.softmax),
    Case("convolution, valid", "convolution.conv", "nn.Conv", convolve(1, "valid")),
    Case("convolution, same", "convolution.conv", "nn.Conv", convolve(1, "same")),
    Case("convolution, same, stride 2", "convolution.conv", "nn.Conv", convolve(2, "same")),
    Case("convolution, padding 2, stride 3", "convolution.conv", "nn.Conv", convolve(3, 2)),
    Case("convolution, no bias", "convolution.conv", "nn.Conv", convolve(1, 1, bias=False)),
    *pools(),
    Case("global average pool", "pooling.global_average_pool", "jnp.mean", global_average),
    Case("batch normalisation, training", "normalisation.batch_norm", "nn.BatchNorm", batch_norm(True)),
    Case("batch normalisation, inference", "normalisation.batch_norm", "nn.BatchNorm", batch_norm(False)),
    Case("layer normalisation", "normalisation.layer_norm", "nn.LayerNorm", layer_norm),
    Case("RNN, 8 steps", "recurrent.rnn_cell", "nn.SimpleCell", recurrence("rnn", nn.SimpleCell, recurrent.RNN_GATES)),
    Case("GRU, 8 steps", "recurrent.gru_cell", "nn.GRUCell", recurrence("gru", nn.GRUCell, recurrent.GRU_GATES)),
    Case(
        "LSTM, 8 steps",
        "recurrent.lstm_cell",
        "nn.OptimizedLSTMCell",
        recurrence("lstm", nn.OptimizedLSTMCell, recurrent.LSTM_GATES),
    ),
    Case("residual block, identity", "residual.bottleneck", "nn modules", residual_case("stage1_block2", True)),
    Case("residual block, projection", "residual.bottleneck", "nn modules", residual_case("stage2_block1", True, 2)),
    # Ten layers deep, each normalised by its own batch: rounding compounds, and float64 lies between the two sides.
    Case("residual network, training", "residual.resnet", "nn modules", residual_case(None, True), single=1e-4),
    Case("residual network, inference", "residual.resnet", "nn modules", residual_case(None, False)),
    loss(
        "softmax_cross_entropy",
        optax.softmax_cross_entropy_with_integer_labels,
        lambda rng: rng.integers(0, 4, 6),
        "optax.softmax_cross_entropy_with_integer_labels",
    ),
    loss(
        "binary_cross_entropy",
        optax.sigmoid_binary_cross_entropy,
        lambda rng: rng.random((6, 4)),
        "optax.sigmoid_binary_cross_entropy",
    ),
    loss("squared_error", optax.squared_error, real, "optax.squared_error"),
    loss("absolute_error", lambda y, t: jnp.abs(y - t), real, "jnp.abs"),
    loss("hinge", optax.hinge_loss, signs, "optax.hinge_loss"),
    loss("huber", optax.huber_loss, real, "optax.huber_loss"),
    Case(
        "gradient descent, 50 steps",
        "optimizers.gradient_descent",
        "optax.sgd",
        optimise(optimizers.gradient_descent(0.1), optax.sgd(0.1)),
    ),
    Case(
        "momentum, 50 steps",
        "optimizers.momentum",
        "optax.ema, optax.scale",
        optimise(optimizers.momentum(0.1), optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.1))),
    ),
    Case(
        "momentum, 50 steps",
        "optimizers.momentum",
        "optax.sgd, rate * (1 - beta)",
        optimise(optimizers.momentum(0.1, 0.8), optax.sgd(0.1 * (1 - 0.8), momentum=0.8)),
    ),
    Case(
        "Nesterov momentum, 50 steps",
        "optimizers.momentum",
        "optax.sgd, rate * (1 - beta)",
        optimise(optimizers.momentum(0.1, nesterov=True), optax.sgd(0.1 * (1 - 0.9), momentum=0.9, nesterov=True)),
    ),
    Case(
        "RMSProp, 50 steps",
        "optimizers.rmsprop",
        "optax.rmsprop, eps_in_sqrt=False",
        optimise(optimizers.rmsprop(0.01), optax.rmsprop(0.01, eps_in_sqrt=False)),
    ),
    Case("Adam, 50 steps", "optimizers.adam", "optax.adam", optimise(optimizers.adam(0.01), optax.adam(0.01))),
    Case(
        "AdamW, 50 steps",
        "optimizers.adamw",
        "optax.adamw",
        optimise(optimizers.adamw(0.01, weight_decay=0.1), optax.adamw(0.01, weight_decay=0.1)),
    ),
    decay("exponential", optimizers.exponential_decay(0.1, 0.5, 20), optax.exponential_decay(0.1, 20, 0.5)),
    decay("cosine", optimizers.cosine_decay(0.1, 40), optax.cosine_decay_schedule(0.1, 40)),
]


def largest_difference(case: Case, dtype: type) -> float:
    """max |ours - theirs| over all values and gradients, each array as a share of its largest magnitude, at least 1."""
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        ours, theirs = case.run(np.random.default_rng(0), dtype)
        theirs = jax.tree.map(np.asarray, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    largest = 0.0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype == dtype
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        largest = max(largest, float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b)))))
    return largest


def largest_differences() -> list[tuple[Case, float, float]]:
    """(case, float64 difference, float32 difference) of every case."""
    return [(case, largest_difference(case, np.float64), largest_difference(case, np.float32)) for case in CASES]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.foundation} = {case.reference}")
def test_equal_to_flax(case: Case, dtype: type):
    assert largest_difference(case, dtype) < (1e-10 if dtype == np.float64 else case.single)


def test_the_documented_table_has_every_row():
    text = (Path(__file__).parents[2] / "docs" / "foundations.md").read_text()
    for case in CASES:
        assert f"| {case.foundation} | `{case.scratch}` | `{case.reference}` |" in text


def test_without_the_factor_momentum_is_not_optax_trace():
    """The oracle can fail: optax.sgd's momentum at the same rate is another optimizer."""
    case = Case("", "", "", optimise(optimizers.momentum(0.1), optax.sgd(0.1, momentum=0.9)))
    assert largest_difference(case, np.float64) > 0.1


def test_inverse_time_decay():
    rate = optimizers.inverse_time_decay(0.6, 0.5, interval=10)
    assert [rate(step) for step in (0, 9, 10, 25)] == pytest.approx([0.6, 0.6, 0.4, 0.3])


@pytest.mark.parametrize("shape", [(300, 200), (3, 3, 64, 96)])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("zeros", nn.initializers.zeros),
        ("random", nn.initializers.normal(0.01)),
        ("xavier", nn.initializers.xavier_uniform()),
        ("he", nn.initializers.variance_scaling(2.0, "fan_in", "normal")),
    ],
)
def test_initialisers_draw_from_the_same_distribution(name, reference, shape):
    ours = getattr(initialisers, name)(np.random.default_rng(0), shape)
    theirs = np.asarray(reference(jax.random.key(0), shape))
    assert ours.dtype == np.float32
    assert ours.shape == shape
    assert abs(ours.mean()) <= 0.02 * theirs.std()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.01)
    quantiles = [0, 0.1, 0.9, 1] if name == "xavier" else [0.1, 0.9]  # a uniform has ends
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(theirs, quantiles), rtol=0.02)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for features in (64, 32):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(10)(x)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (8, 16):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


PAIRS = {"mlp": (network.mlp((64, 32), 10), Mlp()), "cnn": (network.cnn((8, 16), 10), Cnn())}
RECIPES = {
    "momentum": (optimizers.momentum(0.1), optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.1))),
    "adam": (optimizers.adam(1e-3), optax.adam(1e-3)),
}


def losses_of_100_steps(name: str, recipe: str, images, labels, dtype) -> tuple[list[float], list[float]]:
    """Both sides' losses from one start over 100 batches of 32: (scratch, Flax)."""
    (net, module), (ours, theirs) = PAIRS[name], RECIPES[recipe]
    images = images.astype(dtype)
    order = np.random.default_rng(1).integers(0, len(images), (100, 32))
    params, stats = network.init(np.random.default_rng(2), net, images.shape[1:], dtype)
    *_, history = network.train(net, params, stats, ours, ((images[rows], labels[rows]) for rows in order))
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):

        def mean_loss(params, x, t):
            return optax.softmax_cross_entropy_with_integer_labels(module.apply({"params": params}, x), t).mean()

        @jax.jit
        def step(params, state, x, t):
            value, grads = jax.value_and_grad(mean_loss)(params, x, t)
            updates, state = theirs.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        params, their_history = jax.tree.map(jnp.asarray, params), []
        state = theirs.init(params)
        for rows in order:
            params, state, value = step(params, state, images[rows], labels[rows])
            their_history.append(float(value))
    return history, their_history


def follow(name, recipe, images, labels, dtype):
    history, their_history = losses_of_100_steps(name, recipe, images, labels, dtype)
    assert np.mean(history[-10:]) < 0.8 * np.mean(history[:10])  # it learns, so that following means something
    np.testing.assert_allclose(history, their_history, rtol=1e-9 if dtype == np.float64 else 1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", PAIRS)
def test_the_same_losses_for_100_steps(name, dtype):
    """On patterns in noise, so that no files are needed."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 256)
    images = normal(rng, 10, 12, 12, 1)[labels] + 0.5 * normal(rng, 256, 12, 12, 1)
    follow(name, "adam", images, labels, dtype)


def read_idx(path: Path, header: int, count: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(header + count)[header:], np.uint8)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", PAIRS)
def test_the_same_losses_for_100_steps_of_mnist(name, recipe, data_dir):
    folder, count = Path(data_dir) / "mnist", 2000
    if not folder.is_dir():
        pytest.skip("no mnist under the data directory")
    images = read_idx(folder / "train-images-idx3-ubyte.gz", 16, count * 784).reshape(count, 28, 28, 1) / 255
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz", 8, count).astype(np.int64)
    follow(name, recipe, images, labels, np.float32)


if __name__ == "__main__":
    print("| foundation | scratch | reference | float64 | float32 |\n|---|---|---|---|---|")
    for case, double, single in largest_differences():
        print(f"| {case.foundation} | `{case.scratch}` | `{case.reference}` | {double:.1e} | {single:.1e} |")
