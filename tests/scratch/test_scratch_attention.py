"""Attention, both directions, transposed convolution, probabilities as losses take them: values and gradients."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.scratch import (
    activations,
    attention,
    convolution,
    layers,
    losses,
    network,
    normalisation,
    optimizers,
    recurrent,
)
from fdl.scratch.gradient_check import check_gradient, check_layer
from fdl.scratch.trees import Tree

LIMIT = 1e-7


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def dense_params(rng: np.random.Generator, inputs: int, outputs: int) -> Tree:
    return {"kernel": rng.standard_normal((inputs, outputs)), "bias": rng.standard_normal(outputs)}


@pytest.mark.parametrize("masked", [False, True])
def test_dot_product_attention(rng: np.random.Generator, masked: bool) -> None:
    tree = {name: rng.standard_normal((2, n, d)) for name, n, d in (("q", 4, 6), ("k", 4, 6), ("v", 4, 5))}
    mask = np.tri(4, dtype=bool) if masked else None
    r = rng.standard_normal((2, 4, 5))

    def loss(tree: Tree) -> tuple[float, Tree]:
        y, cache = attention.dot_product_attention(tree["q"], tree["k"], tree["v"], mask)
        dq, dk, dv = attention.dot_product_attention_backward(r, cache)
        return float(np.sum(r * y)), {"q": dq, "k": dk, "v": dv}

    assert check_gradient(loss, tree) < LIMIT
    y, (weights, *_) = attention.dot_product_attention(tree["q"], tree["k"], tree["v"], mask)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
    with jax.enable_x64(True):  # Flax has an axis of heads before the last one
        expected = nn.dot_product_attention(
            *(tree[name][:, :, None] for name in "qkv"), mask=None if mask is None else mask[None, None]
        )
    np.testing.assert_allclose(y, expected[:, :, 0], rtol=1e-6, atol=1e-7)


def test_a_query_without_a_key_gets_zero(rng: np.random.Generator) -> None:
    q, k, v = rng.standard_normal((3, 1, 2, 4))
    mask = np.array([[[True, False], [False, False]]])
    y, _ = attention.dot_product_attention(q, k, v, mask)
    np.testing.assert_array_equal(y[0], [v[0, 0], np.zeros(4)])


def test_additive_attention(rng: np.random.Generator) -> None:
    params = {
        "query": {"kernel": rng.standard_normal((3, 7))},
        "key": dense_params(rng, 4, 7),
        "score": {"kernel": rng.standard_normal((7, 1))},
    }
    tree = {
        "q": rng.standard_normal((2, 2, 3)),
        "k": rng.standard_normal((2, 5, 4)),
        "v": rng.standard_normal((2, 5, 6)),
        "params": params,
    }
    mask = rng.random((2, 1, 5)) < 0.7
    mask[..., 0] = True
    r = rng.standard_normal((2, 2, 6))

    def loss(tree: Tree) -> tuple[float, Tree]:
        y, cache = attention.additive_attention(tree["q"], tree["k"], tree["v"], tree["params"], mask)
        dq, dk, dv, grads = attention.additive_attention_backward(r, cache)
        return float(np.sum(r * y)), {"q": dq, "k": dk, "v": dv, "params": grads}

    assert check_gradient(loss, tree) < LIMIT
    y, _ = attention.additive_attention(tree["q"], tree["k"], tree["v"], params, mask)
    b, i = 1, 1  # the paper's equation, one query alone
    scores = [
        params["score"]["kernel"][:, 0]
        @ np.tanh(tree["q"][b, i] @ params["query"]["kernel"] + key @ params["key"]["kernel"] + params["key"]["bias"])
        for key in tree["k"][b]
    ]
    weights = np.exp(scores) * mask[b, 0]
    np.testing.assert_allclose(y[b, i], weights @ tree["v"][b] / weights.sum(), rtol=1e-10)


@pytest.mark.parametrize("to_itself", [True, False])
def test_multi_head_attention(rng: np.random.Generator, to_itself: bool) -> None:
    params = {name: dense_params(rng, 6, 6) for name in ("query", "key", "value", "out")}
    x, memory = rng.standard_normal((2, 3, 6)), None if to_itself else rng.standard_normal((2, 5, 6))
    mask = np.tri(3, dtype=bool)[None] if to_itself else None
    r = rng.standard_normal((2, 3, 6))

    def loss(tree: Tree) -> tuple[float, Tree]:
        y, cache = attention.multi_head_attention(tree["x"], tree["params"], 2, mask, tree.get("memory"))
        dx, dmemory, grads = attention.multi_head_attention_backward(r, cache)
        return float(np.sum(r * y)), {"x": dx, "params": grads} | ({} if dmemory is None else {"memory": dmemory})

    assert check_gradient(loss, {"x": x, "params": params} | ({} if to_itself else {"memory": memory})) < LIMIT
    y, _ = attention.multi_head_attention(x, params, 2, mask, memory)
    flax = {
        name: {
            "kernel": tree["kernel"].reshape(6, 2, 3) if name != "out" else tree["kernel"].reshape(2, 3, 6),
            "bias": tree["bias"].reshape(2, 3) if name != "out" else tree["bias"],
        }
        for name, tree in params.items()
    }
    with jax.enable_x64(True):
        module = nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64)
        expected = module.apply({"params": flax}, x, memory, mask=None if mask is None else mask[None])
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolution(rng: np.random.Generator, stride: int) -> None:
    x = rng.standard_normal((2, 3, 4, 2))
    params = {"kernel": rng.standard_normal((3, 2, 2, 5)), "bias": rng.standard_normal(5)}

    def forward(x, params):
        return convolution.transposed_conv(x, params, stride)

    assert check_layer(forward, convolution.transposed_conv_backward, x, params, rng) < LIMIT
    y, _ = forward(x, {"kernel": params["kernel"]})
    # The transpose by definition: <conv(z), x> = <z, transposed(x)> for every z, the kernel's channels exchanged.
    z = rng.standard_normal(y.shape)
    convolved, _ = convolution.conv(z, {"kernel": params["kernel"].swapaxes(-1, -2)}, stride)
    np.testing.assert_allclose(np.sum(convolved * x), np.sum(z * y), rtol=1e-12)


def test_convolution_by_loops_needs_no_bias(rng: np.random.Generator) -> None:
    x, params = rng.standard_normal((1, 4, 4, 2)), {"kernel": rng.standard_normal((3, 3, 2, 3))}
    y, cache = convolution.conv_loop(x, params)
    other, other_cache = convolution.conv(x, params)
    np.testing.assert_allclose(y, other, rtol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx, grads = convolution.conv_loop_backward(dy, cache)
    np.testing.assert_allclose(dx, convolution.conv_backward(dy, other_cache)[0], rtol=1e-12, atol=1e-12)
    assert list(grads) == ["kernel"]


@pytest.mark.parametrize(
    ("cell", "gates"), [("rnn", recurrent.RNN_GATES), ("gru", recurrent.GRU_GATES), ("lstm", recurrent.LSTM_GATES)]
)
def test_both_directions(rng: np.random.Generator, cell: str, gates: dict[str, bool]) -> None:
    forward, backward = getattr(recurrent, f"{cell}_cell"), getattr(recurrent, f"{cell}_cell_backward")
    params = tuple(recurrent.init_cell(rng, gates, 3, 4, np.float64) for _ in range(2))
    zero = np.zeros((2, 4))
    carries = ((zero, zero),) * 2 if cell == "lstm" else (zero, zero)
    x, r = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5, 8))

    def loss(tree: Tree) -> tuple[float, Tree]:
        _, y, cache = recurrent.bidirectional(forward, carries, tree["x"], tree["params"])
        _, dx, grads = recurrent.bidirectional_backward(backward, r, cache)
        return float(np.sum(r * y)), {"x": dx, "params": grads}

    assert check_gradient(loss, {"x": x, "params": params}) < LIMIT
    _, y, _ = recurrent.bidirectional(forward, carries, x, params)
    _, mirrored, _ = recurrent.bidirectional(forward, carries, x[:, ::-1], params[::-1])
    np.testing.assert_allclose(y, np.concatenate(np.split(mirrored[:, ::-1], 2, -1)[::-1], -1), rtol=1e-12)


def test_gates_and_cells_are_reached_by_name(rng: np.random.Generator) -> None:
    params = recurrent.init_cell(rng, recurrent.LSTM_GATES, 3, 4, np.float64)
    carry, y, cache = recurrent.sequence(
        recurrent.lstm_cell, (np.zeros((2, 4)),) * 2, rng.standard_normal((2, 5, 3)), params
    )
    cells = np.stack([step.c for step in cache.steps], axis=1)
    np.testing.assert_array_equal(cells[:, -1], carry[0])
    for t, step in enumerate(cache.steps):
        np.testing.assert_allclose(y[:, t], step.o * np.tanh(cells[:, t]))
        np.testing.assert_allclose(cells[:, t], step.f * step.c_before + step.i * step.g)


def test_unit_rows(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 3))
    assert (
        check_layer(
            lambda x, _: normalisation.unit_rows(x),
            lambda dy, c: (normalisation.unit_rows_backward(dy, c), {}),
            x,
            {},
            rng,
        )
        < LIMIT
    )
    y, _ = normalisation.unit_rows(np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(y, [[0, 0.6, 0.8], [0, 0, 0]])


def test_losses_on_probabilities_equal_those_on_logits(rng: np.random.Generator) -> None:
    logits, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    value, cache = losses.softmax_cross_entropy(logits, labels)
    p, p_cache = activations.softmax(logits)
    other, other_cache = losses.categorical_cross_entropy(p, np.eye(4)[labels])
    np.testing.assert_allclose(other, value, rtol=1e-12)
    dlogits = activations.softmax_backward(losses.categorical_cross_entropy_backward(1.0, other_cache), p_cache)
    np.testing.assert_allclose(dlogits, losses.softmax_cross_entropy_backward(1.0, cache), rtol=1e-10, atol=1e-14)
    targets = rng.random((6, 4))
    value, cache = losses.binary_cross_entropy(logits, targets)
    p, p_cache = activations.sigmoid(logits)
    other, other_cache = losses.bernoulli_cross_entropy(p, targets)
    np.testing.assert_allclose(other, value, rtol=1e-12)
    dlogits = activations.sigmoid_backward(losses.bernoulli_cross_entropy_backward(1.0, other_cache), p_cache)
    np.testing.assert_allclose(dlogits, losses.binary_cross_entropy_backward(1.0, cache), rtol=1e-10, atol=1e-14)


def test_a_probability_of_zero_costs_nothing_where_nothing_is_asked_of_it() -> None:
    p, t = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])
    value, cache = losses.categorical_cross_entropy(p, t)
    assert value == 0
    np.testing.assert_array_equal(losses.categorical_cross_entropy_backward(1.0, cache), [[-1.0, 0.0]])
    assert losses.categorical_cross_entropy(p, t[:, ::-1])[0] == np.inf


@pytest.mark.parametrize(
    "name",
    [
        "binary_cross_entropy",
        "bernoulli_cross_entropy",
        "categorical_cross_entropy",
        "squared_error",
        "absolute_error",
        "hinge",
        "huber",
    ],
)
def test_shapes_that_numpy_would_broadcast_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: outputs \(4, 1\) and targets \(4,\) differ"):
        getattr(losses, name)(np.full((4, 1), 0.5), np.ones(4))


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (np.eye(3), "one-hot"),
        (np.zeros((3, 1), int), "expected integers"),
        (np.array([0, 1, 3]), "0 to 3, expected 0 to 2"),
        (np.array([-1, 0, 0]), "from -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        losses.softmax_cross_entropy(np.zeros((3, 3)), labels)


def test_dropout_with_a_given_mask(rng: np.random.Generator) -> None:
    x, uniforms = rng.standard_normal((3, 4)), rng.random((3, 4))
    np.testing.assert_array_equal(
        layers.apply_dropout_mask(x, uniforms >= 0.25, 0.25)[0], layers.dropout(x, 0.25, uniforms)[0]
    )
    np.testing.assert_array_equal(layers.apply_dropout_mask(np.ones(2), np.array([True, False]), 0.5)[0], [2, 0])


def test_clipping_by_norm_is_optax(rng: np.random.Generator) -> None:
    grads = {"a": rng.standard_normal((3, 2)), "b": {"c": rng.standard_normal(5)}}
    for limit in (0.5, 100.0):
        with jax.enable_x64(True):
            expected, _ = optax.clip_by_global_norm(limit).update(grads, optax.EmptyState())
        ours = optimizers.clip_by_norm(grads, limit)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, expected)
    zero = {"a": np.zeros(2)}
    np.testing.assert_array_equal(optimizers.clip_by_norm(zero, 1.0)["a"], [0, 0])


def test_warmup_comes_before_any_decay() -> None:
    rate = optimizers.warmup(optimizers.cosine_decay(1.0, 100), 4)
    assert [rate(t) for t in (0, 1, 3)] == pytest.approx(
        [0.25, 0.5 * optimizers.cosine_decay(1.0, 100)(1), optimizers.cosine_decay(1.0, 100)(3)]
    )


def test_a_network_gives_probabilities_classes_and_every_layers_output(rng: np.random.Generator) -> None:
    net = network.mlp((5,), 3)
    params, stats = network.init(rng, net, (4,))
    x = rng.standard_normal((7, 4))
    logits = network.predict(net, params, stats, x)
    p = network.predict_probabilities(net, params, stats, x)
    np.testing.assert_allclose(p, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    found = network.layer_outputs(net, params, stats, x)
    assert list(found) == network.names(net)
    np.testing.assert_array_equal(found["Dense_1"], logits)
    np.testing.assert_array_equal(found["Plain_1"], np.maximum(found["Dense_0"], 0))
    classes = network.predict_classes(net, params, stats, x)
    assert network.accuracy(classes, classes) == 1
    assert network.accuracy(np.array([1, 2, 0, 0]), np.array([1, 0, 0, 1])) == 0.5
    with pytest.raises(ValueError, match="differ in shape"):
        network.accuracy(classes, classes[:, None])


def test_samples_follow_the_softmax_at_their_temperature(rng: np.random.Generator) -> None:
    logits = np.log(np.array([0.1, 0.2, 0.7]))
    for temperature in (1.0, 2.0):
        expected = activations.softmax(logits / temperature)[0]
        drawn = network.sample(rng, np.tile(logits, (20_000, 1)), temperature)
        shares = np.bincount(drawn, minlength=3) / 20_000
        assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / 20_000)
    assert (network.sample(rng, np.tile(logits, (100, 1)), 1e-6) == 2).all()
