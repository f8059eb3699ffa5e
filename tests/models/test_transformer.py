"""The Transformer beside torch.nn's pre-norm layers, and token by token beside the whole row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.models import AttentionTranslator, CausalTransformer, TranslationTransformer
from fdl.models.transformer import Stack, causal

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def drawn(init, *arguments):
    """Parameters, none of them zero."""
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *arguments))["params"]
    return jax.tree.map(lambda leaf: 0.4 * draw(*leaf.shape), shapes)


def copy_attention(torch, theirs, ours):
    names = ("query", "key", "value")
    theirs.in_proj_weight.copy_(torch.tensor(np.concatenate([ours[name]["kernel"].T for name in names])))
    theirs.in_proj_bias.copy_(torch.tensor(np.concatenate([ours[name]["bias"] for name in names])))
    copy_dense(torch, theirs.out_proj, ours["output"])


def copy_dense(torch, theirs, ours):
    theirs.weight.copy_(torch.tensor(np.array(ours.get("kernel", ours.get("scale")).T)))
    theirs.bias.copy_(torch.tensor(np.array(ours["bias"])))


def test_encoder_and_decoder_equal_torch_in_value_and_gradient():
    torch = pytest.importorskip("torch")
    width, heads, hidden, lengths = 8, 2, 12, np.array([5, 3])
    source, target, weights = draw(2, 5, width), draw(2, 4, width), draw(2, 4, width)
    there = np.arange(5) < lengths[:, None]
    stack = Stack(2, heads, hidden)
    apply = stack.apply
    encoder, decoder = (
        drawn(stack.init, source, there[:, None]),
        drawn(stack.init, target, causal(4), source, there[:, None]),
    )
    settings = {"dropout": 0.0, "batch_first": True, "norm_first": True}
    torch_encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(width, heads, hidden, **settings), 2, torch.nn.LayerNorm(width),
        enable_nested_tensor=False,
    )  # fmt: skip
    torch_decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(width, heads, hidden, **settings), 2, torch.nn.LayerNorm(width)
    )
    with torch.no_grad():
        for theirs, ours in ((torch_encoder, encoder), (torch_decoder, decoder)):
            copy_dense(torch, theirs.norm, ours["norm"])
            for number, layer in enumerate(theirs.layers, 1):
                mine = jax.tree.map(np.asarray, ours[f"layer{number}"])
                copy_attention(torch, layer.self_attn, mine["attention"])
                norms = ["attention_norm", "feed_norm"]
                if "memory_attention" in mine:
                    copy_attention(torch, layer.multihead_attn, mine["memory_attention"])
                    norms.insert(1, "memory_norm")
                for place, norm in enumerate(norms, 1):
                    copy_dense(torch, getattr(layer, f"norm{place}"), mine[norm])
                copy_dense(torch, layer.linear1, mine["feed"]["hidden"])
                copy_dense(torch, layer.linear2, mine["feed"]["output"])
    given = [torch.tensor(x, requires_grad=True) for x in (source, target)]
    mask, padding = torch.nn.Transformer.generate_square_subsequent_mask(4), torch.tensor(~there)
    memory = torch_encoder(given[0], src_key_padding_mask=padding)
    expected = torch_decoder(given[1], memory, tgt_mask=mask, memory_key_padding_mask=padding)
    (expected * torch.tensor(weights)).sum().backward()

    def loss(source, target, encoder, decoder):
        memory, _ = apply({"params": encoder}, source, there[:, None])
        found, _ = apply({"params": decoder}, target, causal(4), memory, there[:, None])
        return (found * weights).sum(), found

    (d_source, d_target, d_encoder, _), found = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))(
        source, target, encoder, decoder
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    close(found, expected.detach())
    close(d_target, given[1].grad)
    close(np.where(there[..., None], d_source, 0), np.where(there[..., None], given[0].grad, 0))
    close(d_encoder["layer1"]["feed"]["hidden"]["kernel"].T, torch_encoder.layers[0].linear1.weight.grad)


TRANSLATORS = {
    "transformer": TranslationTransformer(11, 8, 8, 1, 2, 2, 12),
    "additive": AttentionTranslator(11, "gru", 6, 8, attention="additive"),
    "dot": AttentionTranslator(11, "lstm", 6, 8, attention="dot"),
}


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translation_token_by_token_is_the_whole_row_and_padding_says_nothing(name):
    model = TRANSLATORS[name]
    tokens, before = RNG.integers(4, 11, (2, 5)), RNG.integers(4, 11, (2, 4))
    mask = (np.arange(5) < np.array([[5], [3]])).astype(np.float32)
    inputs = {"tokens": tokens, "mask": mask}
    variables = {"params": drawn(model.init, inputs, before)}
    whole = jax.jit(model.apply)(variables, inputs, before)

    @jax.jit
    def stepwise(inputs):
        source = model.apply(variables, inputs, method="encode")
        state, rows = model.apply(variables, source, 4, method="start"), []
        for place in range(4):
            logits, state = model.apply(variables, source, before[:, place], state, method="step")
            rows.append(logits)
        return jnp.stack(rows, 1)

    np.testing.assert_allclose(stepwise(inputs), whole, atol=2e-5)
    other = {"tokens": np.where(mask > 0, tokens, 4), "mask": mask}
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, other, before), whole)
    later = before.copy()
    later[:, 3] = 5
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, inputs, later)[:, :3], whole[:, :3])


def test_additive_attention_is_its_equation():
    model = TRANSLATORS["additive"]
    inputs = {"tokens": RNG.integers(4, 11, (1, 3)), "mask": np.ones((1, 3), np.float32)}
    before = RNG.integers(4, 11, (1, 2))
    params = jax.tree.map(np.asarray, drawn(model.init, inputs, before))
    _, shown = model.apply({"params": params}, inputs, before, mutable=["intermediates"])
    memory = np.asarray(model.apply({"params": params}, inputs, method="encode").memory[0])
    start = np.tanh(memory.mean(0) @ params["begin"]["kernel"] + params["begin"]["bias"])
    layers = model.clone()
    h, _ = layers.bind({"params": params}).first(
        params["words"]["embedding"][before], None, (jnp.asarray(start[None]),)
    )
    energy = (
        np.tanh(
            (np.asarray(h[0]) @ params["query"]["kernel"])[:, None]
            + memory @ params["key"]["kernel"]
            + params["key"]["bias"]
        )
        @ params["score"]["kernel"]
    )
    weights = np.exp(energy[..., 0]) / np.exp(energy[..., 0]).sum(-1, keepdims=True)
    np.testing.assert_allclose(shown["intermediates"]["attention"][0], weights, rtol=1e-4)


def test_the_causal_transformer_sees_no_later_token_and_forgets_what_lies_beyond_its_context():
    model = CausalTransformer(7, context=6, width=8, layers=2, heads=2, hidden=12)
    tokens = RNG.integers(0, 7, (2, 9))
    variables = {"params": drawn(model.init, tokens[:, :6])}
    run = jax.jit(model.apply)
    whole = run(variables, tokens[:, :6])
    changed = tokens[:, :6].copy()
    changed[:, 4:] = 0
    np.testing.assert_array_equal(run(variables, changed)[:, :4], whole[:, :4])
    step = jax.jit(lambda token, carry: model.apply(variables, token, carry, method="with_carry"))
    carry = model.initial_carry(2)
    logits, carry = step(tokens[:, :3], carry)
    np.testing.assert_allclose(logits[:, 0], whole[:, 2], atol=1e-5)
    for place in range(3, 9):
        logits, carry = step(tokens[:, place : place + 1], carry)
        if place < 6:
            np.testing.assert_allclose(logits[:, 0], whole[:, place], atol=1e-5)
    np.testing.assert_allclose(logits[:, 0], run(variables, tokens[:, 3:])[:, -1], atol=1e-5)
    long, _ = model.apply(variables, tokens, model.initial_carry(2), method="with_carry")
    np.testing.assert_allclose(long, logits, atol=1e-5)
    with pytest.raises(ValueError, match=r"raise model\.context"):
        model.apply(variables, tokens)
