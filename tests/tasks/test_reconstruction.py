"""Autoencoders: the bounds in nats beside their equations, binarisation, the baselines, what is drawn and predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fdl.data import Facts, Splits
from fdl.data.binarize import Binarize
from fdl.models import Autoencoder
from fdl.models.layers import UpConv
from fdl.tasks import Reconstruction, Variational, View
from fdl.tasks.reconstruction import bernoulli_mixture, log_likelihood

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (12, 7, 6, 1)).astype(np.uint8)
BLACK_AND_WHITE = (RNG.random((5, 7, 6, 1)) < 0.4).astype(np.float32)


def autoencoder(**changes: Any) -> tuple[Autoencoder, Any]:
    model = Autoencoder(**{"shape": (7, 6, 1), "filters": (), "dense": (8,), "latent": 3} | changes)
    return model, jax.jit(model.init)(jax.random.key(1), jnp.asarray(BLACK_AND_WHITE))


@pytest.mark.parametrize("filters", [(), (3, 5), (2, 3, 4)])
def test_pictures_of_any_size_come_back_in_their_size(filters: tuple[int, ...]) -> None:
    model = Autoencoder(shape=(7, 6, 1), filters=filters, dense=(), latent=3)
    outputs, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.asarray(BLACK_AND_WHITE)))
    assert outputs["logits"].shape == BLACK_AND_WHITE.shape
    assert outputs["code"].shape == (5, 3)


def test_an_upward_convolution_is_a_convolution_and_pytorchs_pixel_shuffle() -> None:
    torch = pytest.importorskip("torch")
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    made, variables = jax.jit(UpConv(6).init_with_output)(jax.random.key(0), x)
    kernel = torch.tensor(np.asarray(variables["params"]["conv"]["kernel"])).permute(3, 2, 0, 1)
    # PyTorch orders channels [filter, row, column]; here it is [row, column, filter].
    kernel = kernel.reshape(2, 2, 6, 5, 3, 3).permute(2, 0, 1, 3, 4, 5).reshape(24, 5, 3, 3)
    maps = torch.nn.functional.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel, padding=1)
    expected = torch.nn.functional.pixel_shuffle(maps, 2).permute(0, 2, 3, 1)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_the_likelihood_is_that_of_independent_pixels() -> None:
    logits = RNG.normal(size=BLACK_AND_WHITE.shape)
    expected = scipy.stats.bernoulli.logpmf(BLACK_AND_WHITE, scipy.special.expit(logits)).sum((1, 2, 3))
    np.testing.assert_allclose(log_likelihood(jnp.asarray(logits), BLACK_AND_WHITE), expected, rtol=1e-5)


def test_the_divergence_is_pytorchs_and_warms_up_in_training_alone() -> None:
    torch = pytest.importorskip("torch")
    mean, log_variance = RNG.normal(size=(2, 5, 3))
    outputs = {
        "logits": jnp.zeros(BLACK_AND_WHITE.shape),
        "code": jnp.asarray(mean),
        "log_variance": jnp.asarray(log_variance),
    }
    task, batch = Variational(warmup_steps=10), {"inputs": BLACK_AND_WHITE}
    normal = torch.distributions.Normal(torch.tensor(mean), torch.tensor(np.exp(log_variance / 2)))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1).numpy()
    held = task.score(outputs, batch)
    np.testing.assert_allclose(held["divergence"], expected, rtol=1e-5)
    np.testing.assert_allclose(held["loss"], 42 * np.log(2) + expected, rtol=1e-5)
    fourth = task.score(outputs, {**batch, "step": jnp.asarray(3)})
    np.testing.assert_allclose(fourth["loss"], 42 * np.log(2) + 0.4 * expected, rtol=1e-5)
    np.testing.assert_allclose(fourth["elbo"], held["elbo"], rtol=1e-6)


def test_the_importance_bound_is_the_mean_weight_and_exact_where_the_code_says_nothing() -> None:
    model, variables = autoencoder(variational=True)
    task, batch, key = Variational(samples=7), {"inputs": jnp.asarray(BLACK_AND_WHITE)}, jax.random.key(3)
    bound = task.decode(model, variables, batch, {"params": key})
    mean, log_variance = (
        np.asarray(each, np.float64) for each in model.apply(variables, BLACK_AND_WHITE, method="encode")
    )
    noise = np.asarray(jax.random.normal(key, (7, 5, 3)), np.float64)
    codes = mean + np.exp(log_variance / 2) * noise
    normal = scipy.stats.norm
    weights = normal.logpdf(codes).sum(-1) - normal.logpdf(codes, mean, np.exp(log_variance / 2)).sum(-1)
    for k, code in enumerate(codes):
        logits = np.asarray(model.apply(variables, code.astype(np.float32), method="decode"), np.float64)
        weights[k] += scipy.stats.bernoulli.logpmf(BLACK_AND_WHITE, scipy.special.expit(logits)).sum((1, 2, 3))
    np.testing.assert_allclose(bound, -scipy.special.logsumexp(weights, 0, b=1 / 7), rtol=1e-5)
    nothing = jax.tree.map(jnp.zeros_like, variables)  # q = p(z), and every pixel is 1 with probability one half
    np.testing.assert_allclose(task.decode(model, nothing, batch), 42 * np.log(2), rtol=1e-5)


def test_binarisation_is_drawn_anew_in_training_and_once_in_evaluation() -> None:
    op, rows = Binarize(), {"inputs": np.repeat(PICTURES, 100, 0)}
    fixed = np.asarray(op.transform(rows, None, {})["inputs"])
    assert set(np.unique(fixed)) == {0, 1}
    np.testing.assert_array_equal(fixed[:100], np.repeat(fixed[:1], 100, 0))  # equal pictures are drawn equally
    alone = np.asarray(op.transform({"inputs": PICTURES[3:4]}, None, {})["inputs"])
    np.testing.assert_array_equal(alone[0], fixed[300])  # wherever they stand in a batch
    assert (fixed[0] != fixed[100]).any()
    uniform = np.random.default_rng(1).random((1200, 7, 6, 1))
    drawn = np.asarray(op.transform(rows, lambda shape: jnp.asarray(uniform, jnp.float32), {})["inputs"])
    shares = drawn.reshape(12, 100, -1).mean(1)
    np.testing.assert_allclose(shares, PICTURES.reshape(12, -1) / 255, atol=0.25)
    np.testing.assert_array_equal(op.transform({"inputs": drawn}, None, {})["inputs"], drawn)
    large = RNG.integers(0, 256, (2000, 8, 8, 1)).astype(
        np.uint8
    )  # over many pictures a pixel's share is its brightness
    held = np.asarray(op.transform({"inputs": large}, None, {})["inputs"])
    assert abs((held - large / 255).mean()) < 0.005
    assert np.corrcoef(held[0].ravel(), held[1].ravel())[0, 1] < 0.5


def test_a_mixture_of_one_is_the_pixels_shares_and_more_fit_better() -> None:
    shares = np.stack([np.full(20, 0.05), np.full(20, 0.95)])
    rows = (RNG.random((600, 20)) < shares[RNG.integers(0, 2, 600)]).astype(np.float32)
    train, test = rows[:400], rows[400:]
    p = (train.sum(0) + 0.5) / 401
    expected = -(test * np.log(p) + (1 - test) * np.log1p(-p)).sum(1).mean()
    assert bernoulli_mixture(train, test, 1) == pytest.approx(expected, rel=1e-6)
    entropy = np.log(2) - 20 * (0.05 * np.log(0.05) + 0.95 * np.log(0.95))
    assert bernoulli_mixture(train, test, 4) == pytest.approx(entropy, rel=0.1)


def view_of(model: Any, variables: Any, task: Any) -> View:
    rows = {"inputs": PICTURES, "targets": np.zeros(12, np.int32)}
    splits = Splits("toy", "builtin", "here", rows, rows, facts=Facts())

    def prepared(rows: Any) -> Any:
        return {**rows, "inputs": np.asarray(rows["inputs"], np.float32) / 255}

    def outputs(rows: Any) -> Any:
        return jax.device_get(task.apply(model, variables, prepared(rows), rngs={"params": jax.random.key(0)}))

    return View(splits, model, variables, outputs, prepared, prepared)


@pytest.mark.parametrize("task", [Reconstruction(), Variational()])
def test_panels_and_predictions_of_a_users_pictures(task: Any, tmp_path: Path) -> None:
    from PIL import Image

    model, variables = autoencoder(variational=isinstance(task, Variational))
    view = view_of(model, variables, task)
    titles = [panel.title for panel in (draw() for draw in task.panels(view)) if panel and panel.figure]
    assert titles[-2:] == ["Reconstructions", "Interpolations"]
    assert ("Samples" in titles) == isinstance(task, Variational)
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.fromarray(PICTURES[number, ..., 0]).save(tmp_path / "in" / f"{number}.png")
    written = task.predict(view, str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "predictions.png"]
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "file,loss"
    batch = view.prepared({"inputs": PICTURES[:2]})
    expected = task.score(view.outputs({"inputs": PICTURES[:2]}), batch)["loss"]
    assert [float(line.split(",")[1]) for line in lines[1:]] == pytest.approx(np.asarray(expected), rel=1e-4)


def test_principal_components_are_a_lower_error_than_the_mean_picture() -> None:
    factors = RNG.random((60, 3)) @ RNG.random((3, 42)) / 3
    rows = {"inputs": (255 * factors).astype(np.uint8).reshape(60, 7, 6, 1)}
    splits = Splits("toy", "builtin", "here", rows, rows)
    scores = Reconstruction().baselines(splits)
    pixels = rows["inputs"].reshape(60, -1) / 255
    assert scores["mean picture"]["loss"] == pytest.approx(pixels.var(0).mean(), rel=1e-4)
    assert scores["32 principal components"]["loss"] < 1e-5
