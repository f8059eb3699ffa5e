"""Every gradient written by hand against finite differences in float64; a planted bug is caught."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fdl.scratch
from fdl.scratch import (
    activations,
    convolution,
    layers,
    losses,
    network,
    normalisation,
    optimizers,
    pooling,
    recurrent,
    residual,
)
from fdl.scratch.gradient_check import check_gradient, check_layer, numerical_gradient, relative_difference
from fdl.scratch.trees import count_parameters, leaves, tree_map

LIMIT = 1e-7


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(rng, *shape):
    return rng.standard_normal(shape)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "softmax"])
def test_activation(rng, name):
    f, back = getattr(activations, name), getattr(activations, name + "_backward")
    x = normal(rng, 5, 7)
    assert check_layer(lambda x, _: f(x), lambda dy, cache: (back(dy, cache), {}), x, {}, rng) < LIMIT


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (3,)])
def test_dense(rng, shape):
    params = {"kernel": normal(rng, 3, 6), "bias": normal(rng, 6)}
    assert check_layer(layers.dense, layers.dense_backward, normal(rng, *shape), params, rng) < LIMIT
    del params["bias"]
    assert check_layer(layers.dense, layers.dense_backward, normal(rng, *shape), params, rng) < LIMIT


def test_embedding_counts_an_id_that_occurs_twice(rng):
    ids, weights = np.array([[1, 4, 1], [0, 1, 4]]), normal(rng, 2, 3, 5)

    def loss(params):
        y, cache = layers.embedding(ids, params)
        return np.sum(weights * y), layers.embedding_backward(weights, cache)[1]

    assert check_gradient(loss, {"embedding": normal(rng, 6, 5)}) < LIMIT


def test_dropout(rng):
    uniforms = rng.random((6, 50))
    forward = lambda x, _: layers.dropout(x, 0.3, uniforms)  # noqa: E731
    x = normal(rng, 6, 50)
    assert check_layer(forward, lambda dy, cache: (layers.dropout_backward(dy, cache), {}), x, {}, rng) < LIMIT
    y, _ = layers.dropout(np.ones((1000, 100)), 0.3, rng.random((1000, 100)))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7])
    assert abs(y.mean() - 1) < 0.01  # inverted: what is left makes up for what is dropped


CONVOLUTIONS = [(1, "valid"), (1, "same"), (2, "same"), (2, "valid"), (1, 2), (3, 1)]


@pytest.mark.parametrize(("stride", "padding"), CONVOLUTIONS)
def test_conv(rng, stride, padding):
    params = {"kernel": normal(rng, 3, 2, 2, 3), "bias": normal(rng, 3)}
    forward = partial(convolution.conv, stride=stride, padding=padding)
    x = normal(rng, 2, 6, 7, 2)
    assert check_layer(forward, convolution.conv_backward, x, params, rng) < LIMIT


@pytest.mark.parametrize(("stride", "padding"), CONVOLUTIONS)
def test_patches_and_loops_agree(rng, stride, padding):
    x, params = normal(rng, 2, 6, 7, 2), {"kernel": normal(rng, 3, 2, 2, 3), "bias": normal(rng, 3)}
    y, cache = convolution.conv(x, params, stride, padding)
    y_loop, cache_loop = convolution.conv_loop(x, params, stride, padding)
    np.testing.assert_allclose(y, y_loop, atol=1e-12)
    dy = normal(rng, *y.shape)
    dx, grads = convolution.conv_backward(dy, cache)
    dx_loop, grads_loop = convolution.conv_loop_backward(dy, cache_loop)
    np.testing.assert_allclose(dx, dx_loop, atol=1e-12)
    tree_map(partial(np.testing.assert_allclose, atol=1e-12), grads, grads_loop)


@pytest.mark.parametrize("padding", ["full", -1])
def test_padding_that_is_none_is_refused(padding):
    with pytest.raises(ValueError, match="expected"):
        convolution.pad(np.zeros((1, 4, 4, 1)), (3, 3), 1, padding)


@pytest.mark.parametrize("name", ["max_pool", "average_pool"])
@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, "valid"), (3, 2, 1), (3, 2, "same"), (2, 1, "valid")]
)
def test_pool(rng, name, window, stride, padding):
    f, back = getattr(pooling, name), getattr(pooling, name + "_backward")
    forward = lambda x, _: f(x, window, stride, padding)  # noqa: E731
    x = normal(rng, 2, 7, 6, 3)
    assert check_layer(forward, lambda dy, cache: (back(dy, cache), {}), x, {}, rng) < LIMIT


def test_max_pool_gives_a_tie_to_the_first():
    _, cache = pooling.max_pool(np.zeros((1, 2, 2, 1)))
    assert pooling.max_pool_backward(np.ones((1, 1, 1, 1)), cache).ravel().tolist() == [1, 0, 0, 0]


def test_global_average_pool(rng):
    back = pooling.global_average_pool_backward
    forward, backward = lambda x, _: pooling.global_average_pool(x), lambda dy, cache: (back(dy, cache), {})
    assert check_layer(forward, backward, normal(rng, 2, 3, 4, 5), {}, rng) < LIMIT


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 2, 3)])
def test_batch_norm(rng, train, shape):
    params = {"scale": normal(rng, 3), "bias": normal(rng, 3)}
    stats = {"mean": normal(rng, 3), "var": rng.random(3) + 0.5}
    forward = lambda x, params: normalisation.batch_norm(x, params, stats, train)[:2]  # noqa: E731
    assert check_layer(forward, normalisation.batch_norm_backward, 3 + normal(rng, *shape), params, rng) < LIMIT


def test_batch_norm_in_inference_ignores_the_company_and_keeps_its_statistics(rng):
    params, stats = {"scale": np.ones(3), "bias": np.zeros(3)}, {"mean": normal(rng, 3), "var": rng.random(3) + 0.5}
    x = normal(rng, 4, 3)
    y, _, after = normalisation.batch_norm(x, params, stats)
    np.testing.assert_array_equal(y[:1], normalisation.batch_norm(x[:1], params, stats)[0])
    assert after is stats


def test_layer_norm(rng):
    params = {"scale": normal(rng, 5), "bias": normal(rng, 5)}
    assert (
        check_layer(normalisation.layer_norm, normalisation.layer_norm_backward, normal(rng, 2, 3, 5), params, rng)
        < LIMIT
    )


CELLS = {"rnn": recurrent.RNN_GATES, "gru": recurrent.GRU_GATES, "lstm": recurrent.LSTM_GATES}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("length", [1, 6])
def test_backpropagation_through_time(rng, kind, length):
    cell, cell_backward = getattr(recurrent, kind + "_cell"), getattr(recurrent, kind + "_cell_backward")
    params = recurrent.init_cell(rng, CELLS[kind], 3, 4, np.float64)
    params = tree_map(lambda leaf: leaf + 0.3 * normal(rng, *leaf.shape), params)
    start = (normal(rng, 2, 4), normal(rng, 2, 4)) if kind == "lstm" else normal(rng, 2, 4)
    weights, end = normal(rng, 2, length, 4), tree_map(lambda leaf: normal(rng, *leaf.shape), start)

    def loss(tree):  # reads every output and the last carry
        carry, y, cache = recurrent.sequence(cell, tree["carry"], tree["x"], tree["params"])
        dcarry, dx, grads = recurrent.sequence_backward(cell_backward, weights, cache, end)
        value = np.sum(weights * y) + sum(np.sum(e * c) for e, c in zip(leaves(end), leaves(carry), strict=True))
        return value, {"carry": dcarry, "x": dx, "params": grads}

    assert check_gradient(loss, {"carry": start, "x": normal(rng, 2, length, 3), "params": params}) < LIMIT


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("train", [True, False])
def test_bottleneck(rng, projection, train):
    params, stats = residual.init_resnet(rng, stages=(2, 1), width=2, channels=1, classes=2, dtype=np.float64)
    name, stride = ("stage2_block1", 2) if projection else ("stage1_block2", 1)
    forward = lambda x, params: residual.bottleneck(x, params, stats[name], stride, train)[:2]  # noqa: E731
    x = normal(rng, 3, 4, 4, 8)
    assert ("shortcut" in params[name]) == projection
    assert check_layer(forward, residual.bottleneck_backward, x, params[name], rng) < LIMIT


def test_a_small_residual_network(rng):
    params, stats = residual.init_resnet(rng, stages=(1, 1), width=2, classes=3, dtype=np.float64)
    forward = lambda x, params: residual.resnet(x, params, stats, train=True)[:2]  # noqa: E731
    assert check_layer(forward, residual.resnet_backward, normal(rng, 2, 16, 16, 3), params, rng) < LIMIT


def test_resnet50_has_the_published_size_and_runs(rng):
    params, stats = residual.init_resnet(rng)
    assert count_parameters(params) == 25_557_032
    x = normal(rng, 1, 64, 64, 3).astype(np.float32)
    logits, caches, new_stats = residual.resnet(x, params, stats)
    assert logits.shape == (1, 1000)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert caches["stage4_block3"]["sum"].shape == (1, 2, 2, 2048)
    assert new_stats.keys() == stats.keys()


ELEMENTWISE = ["binary_cross_entropy", "squared_error", "absolute_error", "hinge", "huber"]


@pytest.mark.parametrize("name", ["softmax_cross_entropy", *ELEMENTWISE])
def test_loss(rng, name):
    f, back = getattr(losses, name), getattr(losses, name + "_backward")
    y = 2 * normal(rng, 6, 4)
    targets = {"softmax_cross_entropy": rng.integers(0, 4, 6), "hinge": rng.choice([-1.0, 1.0], (6, 4))}
    targets["binary_cross_entropy"] = rng.random((6, 4))

    def loss(y):
        value, cache = f(y, targets.get(name, np.zeros((6, 4))))
        return 3 * value, back(3, cache)  # a loss in the middle of a chain

    assert check_gradient(loss, y) < LIMIT


def test_losses_do_not_overflow():
    extreme = np.array([[1e4, -1e4]])
    assert losses.softmax_cross_entropy(extreme, np.array([1]))[0] == 2e4
    assert losses.binary_cross_entropy(extreme, np.array([[1.0, 0.0]]))[0] == 0


def test_l2_leaves_biases_alone(rng):
    params = {"Dense_0": {"kernel": normal(rng, 3, 2), "bias": normal(rng, 2)}, "embedding": normal(rng, 4, 2)}
    penalty, grads = losses.l2(params, 0.7)
    assert penalty == pytest.approx(0.35 * np.sum(params["Dense_0"]["kernel"] ** 2))
    assert check_gradient(lambda params: losses.l2(params, 0.7), params) < LIMIT
    assert not grads["Dense_0"]["bias"].any()
    assert not grads["embedding"].any()


TANH = (activations.tanh, activations.tanh_backward)
NETWORKS = {
    "mlp": network.mlp((5, 4), classes=3, activation=TANH, dropout_rate=0.2),
    "cnn": network.cnn((2, 3), classes=3, hidden=4, normalise=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_network_with_l2(rng, name):
    net = NETWORKS[name]
    params, stats = network.init(rng, net, (6, 6, 1), np.float64)
    batch = normal(rng, 4, 6, 6, 1), rng.integers(0, 3, 4)

    def loss(params):  # the same units dropped at every call
        return network.loss_and_gradient(net, params, stats, batch, l2=0.1, rng=np.random.default_rng(1))[:2]

    assert check_gradient(loss, params) < LIMIT


def test_a_network_learns_and_its_statistics_move(rng):
    net = network.cnn((4,), classes=2, normalise=True)
    x = normal(rng, 64, 6, 6, 1).astype(np.float32)
    labels = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    params, stats = network.init(rng, net, (6, 6, 1))
    feed = [batch for _ in range(30) for batch in optimizers.batches(rng, x, labels, 20)]
    assert [len(labels) for _, labels in feed[:4]] == [20, 20, 20, 4]  # the tail is not lost
    params, after, _, history = network.train(net, params, stats, optimizers.adam(1e-2), feed, l2=1e-4)
    assert len(history) == 120
    assert history[-1] < 0.5 * history[0]
    assert not np.array_equal(after["BatchNorm_0"]["mean"], stats["BatchNorm_0"]["mean"])
    logits = network.predict(net, params, after, x, batch_size=17)
    np.testing.assert_allclose(logits, network.predict(net, params, after, x, batch_size=64), atol=1e-5)
    assert (logits.argmax(-1) == labels).mean() > 0.9
    assert {leaf.dtype for leaf in leaves((params, after))} == {np.dtype(np.float32)}


def test_dropout_in_training_asks_for_a_generator(rng):
    net = network.mlp((4,), classes=2, dropout_rate=0.5)
    params, stats = network.init(rng, net, (3,))
    with pytest.raises(ValueError, match="pass rng"):
        network.forward(net, params, stats, np.ones((2, 3), np.float32), train=True)


def test_a_planted_bug_is_caught():
    """A 4-5-3-1 net with two bugs in its backward pass, seed 1: the course exercise prints 0.285093156776."""
    old = np.random.RandomState(1)  # the exercise's generator
    x, labels = old.randn(4, 3).T, np.array([[1.0], [1.0], [0.0]])
    shapes = [(5, 4), (5, 1), (3, 5), (3, 1), (1, 3), (1, 1)]
    drawn = [old.randn(*shape) for shape in shapes]  # [out, in] there, [in, out] here
    pairs = zip(drawn[::2], drawn[1::2], strict=True)
    params = {f"Dense_{n}": {"kernel": kernel.T.copy(), "bias": bias[:, 0]} for n, (kernel, bias) in enumerate(pairs)}
    net = network.mlp((5, 3), classes=1)
    loss = losses.binary_cross_entropy, losses.binary_cross_entropy_backward

    def correct(params):
        return network.loss_and_gradient(net, params, {}, (x, labels), loss)[:2]

    def planted(params):
        value, grads = correct(params)
        grads["Dense_1"]["kernel"] = grads["Dense_1"]["kernel"] * 2
        grads["Dense_0"]["bias"] = grads["Dense_0"]["bias"] * 4
        return value, grads

    assert check_gradient(correct, params) < LIMIT
    assert check_gradient(planted, params) == pytest.approx(0.285093156776, abs=1e-6)


def test_checking_restores_its_argument_and_refuses_float32(rng):
    x = normal(rng, 3)
    before = x.copy()
    numeric = numerical_gradient(lambda x: np.sum(x**2), x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(numeric, 2 * x, rtol=1e-8)
    assert relative_difference(np.zeros(2), np.zeros(2)) == 0
    with pytest.raises(TypeError, match="float64"):
        numerical_gradient(lambda x: np.sum(x), np.ones(3, np.float32))


def test_scratch_imports_numpy_alone_and_stays_short():
    files = list(Path(fdl.scratch.__file__).parent.glob("*.py"))
    allowed = {"__future__", "collections", "functools", "math", "typing", "numpy"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                assert module.startswith("fdl.scratch") or module.split(".")[0] in allowed, f"{file.name}: {module}"
    lengths = {file.name: len(file.read_text().splitlines()) for file in files}
    assert sum(lengths.values()) < 2000, lengths
    assert max(lengths.values()) < 270, lengths
