"""Losses and metrics against float64 NumPy, Optax and their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.tasks import losses

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(6, 4)) * 3).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 1])


def numpy_cross_entropy(logits, probabilities):
    logits = logits.astype(np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return -(probabilities * np.log(exp / exp.sum(-1, keepdims=True))).sum(-1)


def test_cross_entropy_of_numbers_probabilities_and_sequences():
    one_hot = np.eye(4)[LABELS]
    expected = numpy_cross_entropy(LOGITS, one_hot)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, one_hot.astype(np.float32)), expected, rtol=1e-5)
    series = losses.cross_entropy(LOGITS.reshape(2, 3, 4), LABELS.reshape(2, 3))
    np.testing.assert_allclose(series, expected.reshape(2, 3), rtol=1e-5)
    soft = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, soft), numpy_cross_entropy(LOGITS, soft), rtol=1e-5)


def test_label_smoothing():
    smooth = 0.9 * np.eye(4)[LABELS] + 0.1 / 4
    np.testing.assert_allclose(
        losses.cross_entropy(LOGITS, LABELS, 0.1), numpy_cross_entropy(LOGITS, smooth), rtol=1e-5
    )


def test_cross_entropy_is_stable_in_value_and_gradient():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4], [1e4, 1e4 + 1]])
    labels = jnp.array([0, 0, 1])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), [0, 1e4, np.log1p(np.exp(-1))], rtol=1e-4)
    gradient = jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - jax.nn.one_hot(labels, 2), atol=1e-6)


def test_a_masked_class_costs_nothing_and_a_masked_label_infinity():
    masked = np.array([[2.0, -np.inf, 0.0], [2.0, -np.inf, 0.0], [-np.inf, -np.inf, 5.0]], np.float32)
    labels = np.array([0, 2, 2])
    left = masked[:2][:, [0, 2]]  # what is left when the class is taken out
    expected = [*numpy_cross_entropy(left, np.eye(2)), 0]
    np.testing.assert_allclose(losses.cross_entropy(masked, labels), expected, rtol=1e-6)
    np.testing.assert_allclose(
        losses.cross_entropy(masked, labels), optax.softmax_cross_entropy_with_integer_labels(masked, labels), rtol=1e-6
    )
    smooth = [*numpy_cross_entropy(left, 0.8 * np.eye(2) + 0.1), 0]
    np.testing.assert_allclose(losses.cross_entropy(masked, labels, 0.2), smooth, rtol=1e-6)
    for smoothing in (0.0, 0.2):
        gradient = jax.grad(lambda z, s=smoothing: losses.cross_entropy(z, labels, s)[:2].sum())(jnp.asarray(masked))
        wanted = jax.nn.softmax(left) - (1 - smoothing) * np.eye(2) - smoothing / 2
        np.testing.assert_allclose(gradient[:2][:, [0, 2]], wanted, atol=1e-6)
        np.testing.assert_array_equal(gradient[:, 1], 0)
    assert losses.cross_entropy(masked, np.array([1, 1, 0])).tolist() == [np.inf] * 3


def test_binary_cross_entropy():
    z, y = np.array([-200.0, -1.0, 0.0, 2.0, 200.0], np.float32), np.array([0, 1, 0.25, 1, 0], np.float32)
    np.testing.assert_allclose(
        losses.binary_cross_entropy(z, y), optax.sigmoid_binary_cross_entropy(z, y), rtol=1e-5, atol=1e-6
    )
    assert losses.binary_cross_entropy(z[None], y[None]).shape == (1,)


def test_regression_losses():
    z, y = np.array([[1.0, 2.0], [0.0, -3.0]], np.float32), np.array([[1.5, 0.0], [0.0, 1.0]], np.float32)
    error = z - y
    np.testing.assert_allclose(losses.squared_error(z, y), (error**2).mean(1))
    np.testing.assert_allclose(losses.absolute_error(z, y), np.abs(error).mean(1))
    expected = np.where(np.abs(error) <= 1.5, error**2 / 2, 1.5 * (np.abs(error) - 0.75)).mean(1)
    np.testing.assert_allclose(losses.huber(z, y, 1.5), expected)
    assert losses.squared_error(z[:, 0], y[:, 0]).shape == (2,)
    for loss in (losses.squared_error, losses.absolute_error, losses.huber, losses.binary_cross_entropy):
        with pytest.raises(ValueError, match="must be alike"):
            loss(z[:, :1], y[:, 0])


def test_hinge():
    rivals = np.where(np.eye(4)[LABELS] > 0, -np.inf, LOGITS).max(1)
    expected = np.maximum(0, 1 + rivals - LOGITS[np.arange(6), LABELS])
    np.testing.assert_allclose(losses.hinge(LOGITS, LABELS), expected, rtol=1e-5)


def test_accuracies():
    logits = np.array([[0, 3, 2, 1], [0, 3, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], [np.nan, 0, 1, 2]], np.float32)
    labels = np.array([1, 2, 0, 1, 3])
    np.testing.assert_array_equal(losses.accuracy(logits, labels), [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(losses.accuracy(logits, np.eye(4, dtype=np.float32)[labels]), [1, 0, 1, 0, 0])
    for k, expected in {1: [1, 0, 1, 0, 0], 2: [1, 1, 1, 1, 0]}.items():
        np.testing.assert_array_equal(losses.top_k_accuracy(logits, labels, k), expected)
    np.testing.assert_array_equal(losses.top_k_accuracy(LOGITS, LABELS, 1), losses.accuracy(LOGITS, LABELS))
    np.testing.assert_array_equal(
        losses.binary_accuracy(np.array([1.0, -1, 0, 2]), np.array([1, 1, 0, 0])), [1, 0, 1, 0]
    )


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="do not fit logits"):
        losses.cross_entropy(LOGITS, LABELS[:, None])
    with pytest.raises(ValueError, match="do not fit logits"):
        losses.accuracy(LOGITS, LABELS[:3])
    with pytest.raises(ValueError, match=r"the score 'a' has values of shape \(3,\) and a weight of shape \(2,\)"):
        losses.weighted_sums({"a": jnp.ones(3)}, jnp.ones(2))


def means(scores, mask=None):
    return {name: float(losses.mean_of(*pair)) for name, pair in losses.weighted_sums(scores, mask).items()}


def test_masked_means_ignore_padding_whatever_it_holds():
    values = jnp.array([1.0, 2.0, np.nan, np.inf])
    assert losses.weighted_sums({"loss": values}, jnp.array([1, 1, 0, 0]))["loss"] == (3, 2)
    assert means({"loss": values}, jnp.array([True, True, False, False])) == {"loss": 1.5}
    by_token = jnp.arange(6.0).reshape(2, 3)
    assert means({"loss": by_token}, jnp.array([0.0, 1.0])) == {"loss": 4}
    assert means({"loss": by_token}, jnp.array([[1, 0, 0], [0, 0, 3.0]])) == {"loss": 15 / 4}
    assert means({"loss": by_token}) == {"loss": 2.5}
    assert means({"loss": by_token}, jnp.zeros(2)) == {"loss": 0}, "the mean of nothing trains nothing"


def test_a_padded_value_that_is_not_finite_gives_a_finite_gradient():
    def loss(w):
        return losses.mean_of(*losses.weighted_sums({"loss": jnp.log(w)}, jnp.array([1, 0]))["loss"])

    np.testing.assert_array_equal(jax.grad(loss)(jnp.array([2.0, 0.0]))[0], 0.5)


def test_scores_of_one_batch_may_differ_in_shape_and_weight():
    mask = jnp.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])  # the third sentence is padding
    tokens, sentences = jnp.arange(9.0).reshape(3, 3), jnp.array([1.0, 0, 1])
    weights = jnp.array([2.0, 1, 5])
    found = losses.weighted_sums({"token": tokens, "sentence": sentences, "weighted": (sentences, weights)}, mask)
    assert found == {"token": (0 + 1 + 3, 3), "sentence": (1, 2), "weighted": (2, 3)}


def test_sums_over_uneven_batches_make_the_exact_mean():
    values = RNG.normal(size=10).astype(np.float32)
    padded, mask = np.append(values, [9, 9]), np.append(np.ones(10), [0, 0])
    parts = [losses.weighted_sums({"a": padded[i : i + 4]}, mask[i : i + 4])["a"] for i in (0, 4, 8)]
    mean = sum(float(total) for total, _ in parts) / sum(float(weight) for _, weight in parts)
    assert mean == pytest.approx(values.mean(), rel=1e-5)
