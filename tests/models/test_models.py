"""Models against Flax's own layers and hand-written NumPy: values, gradients, parameter counts, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fdl.models import CNN, MLP, Recurrent, layers, ops, scans


@pytest.fixture(autouse=True)
def _no_silent_broadcasting():
    with jax.numpy_rank_promotion("raise"):
        yield


def draw(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def init(model, x):
    return jax.jit(model.init)(jax.random.key(0), x)  # compiled whole: faster than operation by operation


def shapes(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]


def test_mlp_is_the_formula():
    model = MLP(widths=(5, 4), outputs=3)
    x = draw(7, 2, 3, 1)
    variables = init(model, x)
    params = jax.tree.map(np.asarray, variables["params"])
    hidden = x.reshape(7, 6)
    for name in ("dense1", "dense2"):
        hidden = np.maximum(hidden @ params[name]["kernel"] + params[name]["bias"], 0)
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-6)


def test_parameter_counts_are_the_originals():
    assert count(shapes(MLP(outputs=10), (1, 28, 28, 1))) == 101_770
    # 3*3*1*64+64, 3*3*64*64+64, 5*5*64*128+128, 128*10+10
    assert count(shapes(CNN(outputs=10), (1, 28, 28, 1))) == 640 + 36_928 + 204_928 + 1_290


def test_cnn_equals_the_plain_network_in_value_and_gradient():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for number in (1, 2):
                x = nn.relu(nn.Conv(4, (3, 3), padding="VALID", name=f"conv{number}")(x))
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = nn.relu(nn.Dense(8, name="dense1")(x.reshape(x.shape[0], -1)))
            return nn.Dense(10, name="output")(x)

    model, x = CNN(filters=(4, 4), dense=(8,), outputs=10), draw(3, 15, 14, 1)
    params = init(model, x)["params"]

    def loss(net, params):
        return (net.apply({"params": params}, x) ** 2).sum()

    np.testing.assert_allclose(model.apply({"params": params}, x), Plain().apply({"params": params}, x), atol=1e-5)
    ours, theirs = (jax.jit(jax.grad(lambda p, net=net: loss(net, p)))(params) for net in (model, Plain()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_cnn_shows_its_feature_maps_only_when_asked():
    model, x = CNN(filters=(4, 6), convs_per_stage=2, padding="SAME", outputs=10), draw(2, 12, 12, 1)
    variables = init(model, x)
    _, state = model.apply(variables, x, mutable=["intermediates"])
    shapes = {name: value.shape for name, value in state["intermediates"].items()}
    assert shapes == {
        "conv1_map": (2, 12, 12, 4),
        "conv2_map": (2, 12, 12, 4),
        "pool1_map": (2, 6, 6, 4),
        "conv3_map": (2, 6, 6, 6),
        "conv4_map": (2, 6, 6, 6),
        "pool2_map": (2, 3, 3, 6),
    }
    assert (state["intermediates"]["conv1_map"] >= 0).all()
    assert set(variables) <= {"params", "intermediates"}
    assert isinstance(model.apply(variables, x), jax.Array)


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_max_pool_is_flax_s(size):
    x = draw(2, *size, 3)
    np.testing.assert_array_equal(ops.max_pool(x, 2), nn.max_pool(x, (2, 2), strides=(2, 2)))
    np.testing.assert_allclose(ops.avg_pool(x, 2), nn.avg_pool(x, (2, 2), strides=(2, 2)), atol=1e-6)


@pytest.mark.parametrize("window", [2, 3])
def test_max_pool_gives_a_tie_to_the_first_as_flax_does(window):
    x = np.random.default_rng(0).integers(0, 3, (4, 7, 8, 5)).astype(np.float32)  # ties in most tiles
    mine, theirs = (
        _gradients(pool, x)[0]
        for pool in (
            lambda x: ops.max_pool(x, window),
            lambda x: nn.max_pool(x, (window, window), strides=(window, window)),
        )
    )
    np.testing.assert_array_equal(mine, theirs)


def test_the_first_stage_gives_a_tie_to_the_first_as_well():
    x, kernel = np.ones((2, 6, 6, 1), np.float32), np.ones((3, 3, 1, 4), np.float32)
    weights = np.random.default_rng(0).standard_normal((2, 2, 2, 4)).astype(np.float32)
    dx = jax.jit(jax.grad(lambda x: (ops.conv_max_pool(x, kernel, "VALID", 2) * weights).sum()))(x)
    wanted = np.zeros_like(x)
    for row, column in np.ndindex(2, 2):  # all is equal: a tile's first place, and the 3 x 3 that it sees
        seen = wanted[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        seen += weights[:, row, column].sum(-1)[:, None, None, None]
    np.testing.assert_allclose(dx, wanted, rtol=1e-5, atol=1e-5)


def test_a_map_too_small_is_an_error_in_words():
    with pytest.raises(ValueError, match="a 2x2 pool does not fit into a map of 1x1"):
        shapes(CNN(filters=(4, 4, 4), outputs=10), (1, 8, 8, 1))
    with pytest.raises(ValueError, match="a 2x2 pool does not fit into a map of 2x1"):  # outside jit too
        ops.conv_max_pool(jnp.zeros((1, 4, 3, 1)), jnp.zeros((3, 3, 1, 2)), "VALID", 2)
    with pytest.raises(ValueError, match="a 5x5 convolution does not fit into a map of 4x6"):
        shapes(CNN(filters=(4,), kernel=5, outputs=10), (1, 4, 6, 1))


def test_batch_norm_uses_the_batch_in_training_and_the_running_averages_else():
    model = MLP(widths=(4,), outputs=10, batch_norm=True, batch_norm_momentum=0.75, activation="linear")
    x = draw(64, 3, scale=3.0)
    variables = init(model, x)
    assert "bias" not in variables["params"]["dense1"]
    _, state = model.apply(variables, x, train=True, mutable=["batch_stats"])
    before = x @ np.asarray(variables["params"]["dense1"]["kernel"])
    stats = state["batch_stats"]["norm1"]
    np.testing.assert_allclose(stats["mean"], 0.25 * before.mean(0), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * before.var(0), rtol=1e-4)
    output = model.apply({"params": variables["params"], **state}, x)
    normal = (before - stats["mean"][None]) / np.sqrt(stats["var"] + 1e-5)[None]
    np.testing.assert_allclose(output, normal @ variables["params"]["output"]["kernel"], atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        MLP(dropout=0.5, outputs=10),
        CNN(filters=(4,), dropout=0.5, outputs=10),
        CNN(filters=(4,), conv_dropout=0.5, outputs=10),
        Recurrent(dropout=0.5, width=8, vocabulary=65),
    ],
)
def test_dropout_acts_in_training_alone(model):
    x = np.arange(12).reshape(2, 6) if isinstance(model, Recurrent) else draw(2, 8, 8, 1)
    variables = init(model, x)
    still = model.apply(variables, x)
    np.testing.assert_array_equal(still, model.apply(variables, x))
    first, again, other = (
        model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, still)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: MLP(outputs=10, **k),
        lambda **k: CNN(filters=(4,), outputs=10, batch_norm=True, **k),
        lambda **k: Recurrent(width=8, vocabulary=65, **k),
    ],
)
def test_parameters_and_outputs_are_float32_whatever_is_computed_in(make, dtype):
    model = make(dtype=dtype)
    x = np.zeros((2, 6), int) if isinstance(model, Recurrent) else draw(2, 8, 8, 1)
    variables = init(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    assert model.apply(variables, x).dtype == jnp.float32


def test_initialisers_have_their_variance():
    shape, key = (400, 300), jax.random.key(0)
    for name, variance in {"he": 2 / 400, "lecun": 1 / 400, "xavier": 2 / 700, "normal": 4e-4, "zeros": 0}.items():
        assert layers.initializer(name)(key, shape).var() == pytest.approx(variance, rel=0.05)
    square = layers.initializer("orthogonal")(key, (50, 50))
    np.testing.assert_allclose(square @ square.T, np.eye(50), atol=1e-5)


FLAX_CELLS = {
    "lstm": (nn.LSTMCell, ("i", "f", "g", "o")),
    "gru": (nn.GRUCell, ("r", "z", "n")),
    "rnn": (nn.SimpleCell, None),
}


def flax_params(cell, params, layer=1):
    """Our fused kernels of one layer, cut up as Flax's cells name them."""
    kernel, bias = params[f"layer{layer}_input"], params[f"layer{layer}_bias"]
    recurrent, gates = params[f"layer{layer}_recurrent"], FLAX_CELLS[cell][1]
    if cell == "rnn":
        return {"i": {"kernel": kernel, "bias": bias}, "h": {"kernel": recurrent}}
    cut = lambda whole: jnp.split(whole, len(gates), axis=-1)  # noqa: E731
    tree = {}
    for gate, w, b, u in zip(gates, cut(kernel), cut(bias), cut(recurrent), strict=True):
        tree[f"i{gate}"], tree[f"h{gate}"] = {"kernel": w}, {"kernel": u}
        tree[f"{'h' if cell == 'lstm' else 'i'}{gate}"]["bias"] = b
    if cell == "gru":
        tree["hn"]["bias"] = params[f"layer{layer}_candidate_bias"]
    return tree


@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("lstm", 5), ("gru", 5), ("rnn", 0)])
def test_recurrent_equals_flax_in_value_and_gradient(cell, embedding):
    vocabulary, width = 7, 6
    model = Recurrent(cell=cell, vocabulary=vocabulary, width=width, layers=2, embedding=embedding)
    tokens = np.random.default_rng(0).integers(0, vocabulary, (3, 9))
    params = init(model, tokens)["params"]
    # Biases start at zero: noise on every leaf, so that none can be mistaken.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * draw(*leaf.shape, seed=leaf.size), params)
    weights = draw(3, 9, vocabulary)

    def theirs(params):
        x = params["embedding"][tokens] if embedding else jax.nn.one_hot(tokens, vocabulary)
        for layer in (1, 2):
            x = nn.RNN(FLAX_CELLS[cell][0](width)).apply({"params": {"cell": flax_params(cell, params, layer)}}, x)
        return x @ params["output"]["kernel"] + params["output"]["bias"][None, None]

    def ours(params):
        return model.apply({"params": params}, tokens)

    np.testing.assert_allclose(jax.jit(ours)(params), jax.jit(theirs)(params), atol=1e-5)
    mine, other = (jax.jit(jax.grad(lambda p, f=f: (f(p) * weights).sum()))(params) for f in (ours, theirs))
    assert jax.tree.structure(mine) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), mine, other)


def plain_scan(cell):
    """The equations of `fdl.models.scans` as a scan that JAX differentiates by itself."""

    def lstm(kernel, bias, carry, x):
        i, f, g, o = jnp.split(x + carry[1] @ kernel, 4, axis=-1)
        c = jax.nn.sigmoid(f) * carry[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    def gru(kernel, bias, h, x):
        (x_r, x_z, x_n), (u_r, u_z, u_n) = jnp.split(x, 3, axis=-1), jnp.split(h @ kernel, 3, axis=-1)
        r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
        h = (1 - z) * jnp.tanh(x_n + r * (u_n + bias[None])) + z * h
        return h, h

    def rnn(kernel, bias, h, x):
        h = jnp.tanh(x + h @ kernel)
        return h, h

    def run(x, carry, kernel, bias=None):
        step = {"lstm": lstm, "gru": gru, "rnn": rnn}[cell]
        last, h = jax.lax.scan(lambda carry, x: step(kernel, bias, carry, x), carry, x)
        return h, last

    return run


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_scan_gradients_reach_every_argument(cell):
    """The first state and the last included (nn.RNN's gradients see neither), each gradient by itself."""
    steps, batch, width = 5, 2, 3
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell] * width
    pair = lambda seed: (draw(batch, width, seed=seed), draw(batch, width, seed=seed + 1))  # noqa: E731
    state = lambda seed: pair(seed) if cell == "lstm" else pair(seed)[0]  # noqa: E731
    arguments = [draw(steps, batch, gates, seed=2), state(3), draw(width, gates, seed=5)]
    arguments += [draw(width, seed=6)] if cell == "gru" else []
    (mine, mine_back), (theirs, theirs_back) = (
        jax.vjp(f, *arguments) for f in (getattr(scans, cell), plain_scan(cell))
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # noqa: E731
    jax.tree.map(close, mine, theirs)
    along, last = draw(steps, batch, width, seed=7), state(8)
    still = jax.tree.map(jnp.zeros_like, (along, last))
    for cotangents in ((along, still[1]), (still[0], last)):
        jax.tree.map(close, mine_back(cotangents), theirs_back(cotangents))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_token_by_token_is_the_whole_sequence(cell):
    model = Recurrent(cell=cell, vocabulary=7, width=6, layers=2, embedding=6, tie_embeddings=True)
    tokens = np.random.default_rng(0).integers(0, 7, (3, 9))
    variables = init(model, tokens)
    carry, rows = model.initial_carry(3), []
    step = jax.jit(lambda token, carry: model.apply(variables, token, carry, method="with_carry"))
    for t in range(9):
        logits, carry = step(tokens[:, t : t + 1], carry)
        rows.append(logits[:, 0])
    np.testing.assert_allclose(np.stack(rows, 1), model.apply(variables, tokens), atol=1e-5)


def test_the_large_vocabulary_path_gives_the_same_values():
    model, tokens = Recurrent(vocabulary=50, width=6, embedding=4), np.arange(40).reshape(2, 20)
    variables = init(model, tokens)  # 50 > 40: words are looked up, then multiplied
    twice = model.apply(variables, np.tile(tokens, (2, 1)))  # 50 <= 80: multiplied, then looked up
    np.testing.assert_allclose(model.apply(variables, tokens), twice[:2], atol=1e-5)


def test_recurrent_start():
    params = Recurrent(vocabulary=7, width=6, forget_bias=1.5).init(jax.random.key(0), np.zeros((1, 2), int))["params"]
    np.testing.assert_array_equal(params["layer1_bias"], np.repeat([0, 1.5, 0, 0], 6))
    for block in np.split(np.asarray(params["layer1_recurrent"]), 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(6), atol=1e-5)


def test_tying_needs_equal_sizes():
    with pytest.raises(ValueError, match="embedding=3 and width=256"):
        Recurrent(tie_embeddings=True, embedding=3)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_recurrent_equals_torch(cell):
    torch = pytest.importorskip("torch")
    vocabulary, width = 7, 6
    model, tokens = Recurrent(cell=cell, vocabulary=vocabulary, width=width), np.arange(14).reshape(2, 7) % 7
    params = jax.tree.map(np.asarray, model.init(jax.random.key(0), tokens)["params"])
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](
        vocabulary, width, batch_first=True
    )
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(params["layer1_input"].T.copy()))
        theirs.weight_hh_l0.copy_(torch.tensor(params["layer1_recurrent"].T.copy()))
        theirs.bias_ih_l0.copy_(torch.tensor(params["layer1_bias"]))
        theirs.bias_hh_l0.zero_()
        hidden = theirs(torch.nn.functional.one_hot(torch.tensor(tokens), vocabulary).float())[0].numpy()
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, tokens), expected, atol=1e-5)


def _gradients(function, *arrays):
    weights = np.random.default_rng(1).standard_normal(jax.eval_shape(function, *arrays).shape).astype(np.float32)
    return jax.grad(lambda *a: (function(*a) * weights).sum(), range(len(arrays)))(*arrays)


@pytest.mark.parametrize(
    ("side", "channels", "kernel", "stride", "padding"),
    [
        (9, 1, 3, 1, "VALID"),
        (8, 3, 3, 2, ((1, 1), (1, 1))),
        (7, 5, 3, 1, "SAME"),
        (6, 4, 1, 2, "VALID"),
        (9, 2, 4, 3, "SAME"),
    ],
)
def test_a_convolution_is_lax_s_in_value_and_gradient(side, channels, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, side, side, channels)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, channels, 6)).astype(np.float32)

    def theirs(x, w):
        return jax.lax.conv_general_dilated(x, w, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ours(x, w):
        return ops.conv(x, w, stride, padding)

    np.testing.assert_array_equal(ours(x, w), theirs(x, w))
    for mine, other in zip(_gradients(ours, x, w), _gradients(theirs, x, w), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(
    ("side", "channels", "kernel", "padding", "window"),
    [
        (9, 1, 3, "VALID", 2),
        (8, 2, 3, "SAME", 2),
        (10, 1, 3, ((1, 0), (0, 2)), 3),
        (8, 5, 3, "VALID", 2),
        (5, 6, 1, "VALID", 2),
    ],
)
def test_a_pooled_convolution_is_the_pool_of_the_convolution(
    monkeypatch, platform, side, channels, kernel, padding, window
):
    chosen = 0 if platform == "cpu" else 1
    monkeypatch.setattr(ops, "_by_platform", lambda *given: given[chosen](*given[2:]))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, side, side, channels)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, channels, 6)).astype(np.float32)

    def theirs(x, w):
        y = jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return nn.max_pool(y, (window, window), strides=(window, window))

    def ours(x, w):
        return ops.conv_max_pool(x, w, padding, window)

    np.testing.assert_allclose(ours(x, w), theirs(x, w), rtol=1e-5, atol=1e-5)
    for mine, other in zip(_gradients(ours, x, w), _gradients(theirs, x, w), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 7, 3), (1, 2, 2, 1), (3, 9, 4)])
def test_sums_over_channels_are_numpy_s_to_its_float64(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = x.astype(np.float64).reshape(-1, shape[-1]).sum(0)
    np.testing.assert_allclose(jax.jit(ops.channel_sum)(x), wanted, rtol=1e-5, atol=1e-5)
    mine = jax.grad(lambda x: (ops.channel_sum(x) * np.arange(1, shape[-1] + 1)).sum())(x)
    np.testing.assert_array_equal(mine, np.broadcast_to(np.arange(1.0, shape[-1] + 1), shape))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_norm_is_flax_s_in_value_gradient_and_statistics(train, dtype):
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.standard_normal((6, 5, 4, 3))).astype(np.float32)
    ours = layers.BatchNorm(0.9, dtype)
    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.dtype(dtype))
    params = {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([0.0, 1.0, -1.0])}
    stats = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 2.0])}
    weights = rng.standard_normal(x.shape).astype(np.float32)

    def run(apply):
        def loss(params, x):
            y, after = apply({"params": params, "batch_stats": stats}, x.astype(dtype))
            return (y.astype(jnp.float32) * weights).sum(), (y, after)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    (_, (y, after)), gradients = run(lambda v, x: ours.apply(v, x, train, mutable=["batch_stats"]))
    (_, (y_theirs, after_theirs)), gradients_theirs = run(lambda v, x: theirs.apply(v, x, mutable=["batch_stats"]))
    assert y.dtype == y_theirs.dtype
    # bfloat16: a value or a gradient by x is rounded to 8 bits once; all else is float32 on both sides.
    bound = 2e-5 if dtype == "float32" else 2**-7
    for mine, other in zip(
        jax.tree.leaves((y, after, gradients)), jax.tree.leaves((y_theirs, after_theirs, gradients_theirs)), strict=True
    ):
        np.testing.assert_allclose(mine.astype(np.float32), other.astype(np.float32), rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_statistics_are_summed_in_float32_whatever_is_computed_in(dtype):
    x = jnp.asarray(3 + 2 * np.random.default_rng(0).standard_normal((16, 9, 9, 3)), dtype)
    variables = {"batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    variables["params"] = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    stats = layers.BatchNorm(0.5, dtype).apply(variables, x, True, mutable=["batch_stats"])[1]["batch_stats"]
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(stats["mean"], wide.mean((0, 1, 2)) / 2, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], (1 + wide.var((0, 1, 2))) / 2, rtol=1e-5)
