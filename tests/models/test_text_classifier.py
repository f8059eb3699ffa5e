"""The classifier of texts: padding, empty texts, the parts beside their plain formulas."""

import jax
import numpy as np
import pytest

from fdl.models import TextClassifier

RNG = np.random.default_rng(0)
SETTINGS = {"vocabulary": 9, "outputs": 2, "embedding": 6, "width": 4, "windows": (2, 3), "buckets": 20}


def drawn(model, inputs):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs))["params"]
    return {"params": jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), shapes)}


def texts(length, lengths=(0, 1, 4)):
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.float32)
    rng = np.random.default_rng(1)
    tokens = np.where(mask[:, :4] > 0, rng.integers(1, 9, (len(lengths), 4)), 0)
    ngrams = np.where(mask[:, :4] > 0, rng.integers(1, 20, (len(lengths), 4)), 0)
    ratios = rng.normal(size=(len(lengths), 4, 2)).astype(np.float32) * (ngrams > 0)[..., None]
    pad = ((0, 0), (0, length - 4))
    return {
        "tokens": np.pad(tokens, pad), "mask": mask, "ngrams": np.pad(ngrams, pad), "ratios": np.pad(ratios, (*pad, (0, 0))),
    }  # fmt: skip


@pytest.mark.parametrize("reader", ["mean", "cnn", "gru"])
def test_more_padding_changes_nothing_and_an_empty_text_has_an_answer(reader):
    model = TextClassifier(reader, **SETTINGS)
    variables = drawn(model, texts(4))
    run = jax.jit(model.apply)
    short = run(variables, texts(4))
    assert np.isfinite(short).all()
    for length in (9,):
        np.testing.assert_allclose(run(variables, texts(length)), short, rtol=1e-5, atol=1e-6)


def test_the_convolution_and_the_pools_are_plain_loops():
    model, inputs = TextClassifier("cnn", **SETTINGS), texts(6, (3,))
    del inputs["ratios"]
    variables = drawn(model, inputs)
    params = jax.tree.map(np.asarray, variables["params"])
    words = np.concatenate([params["words"]["embedding"][inputs["tokens"][0, :3]], np.zeros((3, 6))])
    found = []
    for size in (2, 3):
        dense = params[f"window{size}"]
        rows = [np.maximum(0, words[t : t + size].ravel() @ dense["kernel"] + dense["bias"]) for t in range(3)]
        found.append(rows)
    read = np.concatenate(found, -1)
    expected = np.concatenate([read.mean(0), read.max(0)]) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(model.apply(variables, inputs)[0], expected, rtol=1e-4, atol=1e-5)


def test_it_starts_as_naive_bayes_beside_the_net():
    model, inputs = TextClassifier("mean", **SETTINGS, ngram_scale=0.5), texts(5)
    variables = model.init(jax.random.key(0), inputs)
    alone = model.apply(variables, {name: inputs[name] for name in ("tokens", "mask")})
    both = model.apply(variables, inputs)
    np.testing.assert_allclose(both - alone, 0.5 * inputs["ratios"].sum(1), rtol=1e-4, atol=1e-5)
