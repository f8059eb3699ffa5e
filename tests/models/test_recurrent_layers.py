"""The recurrent family beside torch.nn, fdl.scratch and the plain equations; masks, dropout and starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.models import RecurrentLayers
from fdl.models.recurrent_layers import Tokens
from fdl.scratch import recurrent as by_hand

RNG = np.random.default_rng(0)
CELLS = ("lstm", "gru", "rnn", "rnn_relu", "min_gru")
HAND = {
    "lstm": (by_hand.lstm_cell, by_hand.lstm_cell_backward, ("i", "f", "g", "o")),
    "gru": (by_hand.gru_cell, by_hand.gru_cell_backward, ("r", "z", "n")),
    "rnn": (by_hand.rnn_cell, by_hand.rnn_cell_backward, ("",)),
}


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def drawn(model, x):
    """Parameters, none of them zero."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))["params"]
    return jax.tree.map(lambda leaf: 0.4 * draw(*leaf.shape), shapes)


def close(a, b, atol=1e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=atol)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn_relu"])
def test_stacked_and_bidirectional_layers_equal_torch_on_packed_rows_in_value_and_gradient(cell):
    torch = pytest.importorskip("torch")
    batch, time, size, width, lengths = 3, 7, 4, 5, np.array([7, 4, 1])
    model = RecurrentLayers(cell=cell, width=width, layers=2, bidirectional=True)
    x, weights = draw(batch, time, size), draw(batch, time, 2 * width)
    mask = (np.arange(time) < lengths[:, None]).astype(np.float32)
    params = drawn(model, x)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
    more = {"nonlinearity": "relu"} if cell == "rnn_relu" else {}
    theirs = kind(size, width, num_layers=2, bidirectional=True, batch_first=True, **more)
    names = {f"layer{n + 1}{back}": f"l{n}{'_reverse' if back else ''}" for n in (0, 1) for back in ("", "_backward")}
    with torch.no_grad():
        for ours, name in names.items():
            getattr(theirs, f"weight_ih_{name}").copy_(torch.tensor(np.array(params[f"{ours}_input"].T)))
            getattr(theirs, f"weight_hh_{name}").copy_(torch.tensor(np.array(params[f"{ours}_recurrent"].T)))
            getattr(theirs, f"bias_ih_{name}").copy_(torch.tensor(np.array(params[f"{ours}_bias"])))
            second = np.zeros(getattr(theirs, f"bias_hh_{name}").shape, np.float32)
            if cell == "gru":
                second[-width:] = params[f"{ours}_candidate_bias"]
            getattr(theirs, f"bias_hh_{name}").copy_(torch.tensor(second))
    given = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(given, torch.tensor(lengths), batch_first=True)
    packed_out, last = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(packed_out, batch_first=True)
    (expected * torch.tensor(mask[..., None] * weights)).sum().backward()

    def loss(params, x):
        h, ends = model.apply({"params": params}, x, mask)
        return (h * (mask[..., None] * weights)).sum(), (h, ends)

    (d_params, dx), (h, ends) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    close(h * mask[..., None], expected.detach())
    hidden = [end[1] if cell == "lstm" else end for layer in ends for end in layer]
    close(np.stack(hidden), (last[0] if cell == "lstm" else last).detach())
    close(dx, given.grad)
    for ours, name in names.items():
        close(d_params[f"{ours}_input"].T, getattr(theirs, f"weight_ih_{name}").grad)
        close(d_params[f"{ours}_recurrent"].T, getattr(theirs, f"weight_hh_{name}").grad)
        close(d_params[f"{ours}_bias"], getattr(theirs, f"bias_ih_{name}").grad)


@pytest.mark.parametrize("cell", HAND)
def test_one_layer_equals_the_numpy_twin_in_value_and_gradient(cell):
    forward, backward, gates = HAND[cell]
    model, x, dy = RecurrentLayers(cell=cell, width=5), draw(2, 6, 3), draw(2, 6, 5)
    params = drawn(model, x)
    carry = jax.tree.map(lambda leaf: draw(*leaf.shape), model.initial_carry(2))

    def cut(tree):
        parts = {
            key: np.split(np.asarray(tree[f"layer1_{key}"]), len(gates), -1) for key in ("input", "bias", "recurrent")
        }
        made = {}
        for gate, kernel, bias, recurrent in zip(gates, parts["input"], parts["bias"], parts["recurrent"], strict=True):
            made[f"i{gate}"], made[f"h{gate}"] = {"kernel": kernel}, {"kernel": recurrent}
            made[f"{'h' if cell == 'lstm' else 'i'}{gate}"]["bias"] = bias
        if cell == "gru":
            made["hn"]["bias"] = np.asarray(tree["layer1_candidate_bias"])
        return made

    def loss(params, carry):
        h, _ = model.apply({"params": params}, x, None, carry)
        return (h * dy).sum(), h

    (d_params, d_carry), h = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, carry)
    _, expected, cache = by_hand.sequence(forward, carry[0], x, cut(params))
    close(h, expected)
    d_first, _, grads = by_hand.sequence_backward(backward, dy, cache)
    jax.tree.map(close, cut(d_params), grads)
    jax.tree.map(close, d_carry[0], d_first)


def test_the_min_gru_is_its_equation_one_step_after_the_other():
    model, x = RecurrentLayers(cell="min_gru", width=4), draw(2, 9, 3)
    params = drawn(model, x)
    first = draw(2, 4)
    h, expected = first.astype(np.float64), []
    for t in range(9):
        z, n = np.split(x[:, t] @ params["layer1_input"].astype(np.float64) + params["layer1_bias"], 2, -1)
        z = 1 / (1 + np.exp(-z))
        h = (1 - z) * h + z * n
        expected.append(h)
    found, (last,) = model.apply({"params": params}, x, None, (first,))
    close(found, np.stack(expected, 1))
    close(last, h)


@pytest.mark.parametrize("cell", CELLS)
def test_more_padding_changes_no_bit_of_the_result(cell):
    model = RecurrentLayers(cell=cell, width=24, bidirectional=True)
    lengths = np.array([0, 1, 5, 11, 12])
    x = draw(5, 64, 16)
    params = drawn(model, x)
    results = []
    for time in (12, 13, 64):
        mask = (np.arange(time) < lengths[:, None]).astype(np.float32)
        padded = np.where(mask[..., None] > 0, x[:, :time], 1e3 * time)  # whatever the padding holds
        h, ends = jax.jit(lambda x, mask: model.apply({"params": params}, x, mask))(padded, mask)
        results.append((np.where(mask[:, :12, None] > 0, h[:, :12], 0), jax.device_get(ends)))
    assert not results[0][1][0][0][0][0].any()  # a row without any step ends as it began
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)


@pytest.mark.parametrize("cell", CELLS)
def test_a_masked_row_has_the_gradient_of_the_row_cut_off(cell):
    model, x = RecurrentLayers(cell=cell, width=4, bidirectional=True), draw(1, 9, 3)
    params = drawn(model, x)
    mask = (np.arange(9) < 5).astype(np.float32)[None]

    def loss(params, x, mask):
        h, ends = model.apply({"params": params}, x, mask)
        return (h[:, :5] ** 2).sum() + sum((end**2).sum() for end in jax.tree.leaves(ends))

    gradients = jax.jit(jax.grad(loss, (0, 1)))
    short, whole = gradients(params, x[:, :5], None), gradients(params, x, mask)
    jax.tree.map(close, short[0], whole[0])
    close(short[1], whole[1][:, :5])
    assert not whole[1][:, 5:].any()


def test_a_carried_state_continues_the_row():
    for cell in ("lstm", "min_gru"):
        model, x = RecurrentLayers(cell, 4, layers=2), draw(2, 8, 3)
        params = drawn(model, x)
        run = jax.jit(lambda x, carry: model.apply({"params": params}, x, None, carry))
        zeros = model.initial_carry(2)
        h, ends = run(x, zeros)
        first, carry = run(x[:, :4], zeros)
        second, again = run(x[:, 4:], carry)
        close(np.concatenate([first, second], 1), h)
        jax.tree.map(close, ends, again)


def test_tokens_are_rows_of_a_table_or_one_hot():
    numbers, table = RNG.integers(0, 6, (2, 5)), draw(6, 3)
    for given, same in ((Tokens(numbers, 6, table), table[numbers]), (Tokens(numbers, 6), np.eye(6)[numbers])):
        model = RecurrentLayers(width=4)
        variables = {"params": drawn(model, given)}
        close(model.apply(variables, given)[0], model.apply(variables, jnp.float32(same))[0])


def test_variational_dropout_drops_a_unit_at_every_step_and_weight_dropout_whole_weights():
    x = np.ones((2, 30, 8), np.float32)
    params = drawn(RecurrentLayers("rnn", 16), x)

    def run(key, **settings):
        model = RecurrentLayers("rnn", 16, **settings)
        return np.asarray(model.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(key)})[0])

    zero = run(1, dropout=0.5, variational=True) == 0
    np.testing.assert_array_equal(zero.all(1), zero.any(1))
    assert 0 < zero.mean() < 1
    zero = run(1, dropout=0.5) == 0
    assert (zero.all(1) != zero.any(1)).mean() > 0.9
    one, two = run(1, weight_dropout=0.5), run(2, weight_dropout=0.5)
    close(one[:, 0], two[:, 0])  # the first step has no state to multiply
    assert not np.allclose(one[:, 1], two[:, 1], atol=1e-3)
    close(one[0], one[1])  # one kernel for all rows


def test_chrono_starts_remember_for_the_longest_dependency():
    """Tallec and Ollivier 2018, equation 16: b_f ~ log U[1, T - 1], b_i = -b_f."""
    bias = {}
    for cell, gates in (("lstm", 4), ("gru", 3), ("min_gru", 2)):
        bias[cell] = np.asarray(RecurrentLayers(cell, 4000, longest=200)._bias_init(jax.random.key(0), (gates * 4000,)))
    i, f, g, o = np.split(bias["lstm"], 4)
    np.testing.assert_array_equal(i, -f)
    assert not np.concatenate([g, o]).any()
    for kept in (f, np.split(bias["gru"], 3)[1], -np.split(bias["min_gru"], 2)[0]):
        assert np.exp(kept).min() >= 1 - 1e-5
        assert np.exp(kept).max() <= 199.001
        assert np.exp(kept).mean() == pytest.approx(100, rel=0.05)
    with pytest.raises(ValueError, match="longest is for"):
        RecurrentLayers("rnn", 4, longest=200)
    with pytest.raises(ValueError, match="no recurrent weights"):
        RecurrentLayers("min_gru", 4, weight_dropout=0.5)
