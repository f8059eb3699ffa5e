"""Losses for labels of other kinds (focal, weighted classes, several labels, ranks), and the averaging of an ensemble."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import expit, log_softmax, softmax

from fdl.data import Splits, ops
from fdl.data.facts import Facts, complete_facts
from fdl.experiment import StartAtClassShares
from fdl.models import MLP, Coral, Ensemble, Members, TabularMLP
from fdl.tasks import Classification, MultiLabel, Ordinal, Regression, ensembles, losses
from fdl.tasks.task import View
from fdl.types import UserError

RNG = np.random.default_rng(7)
LOGITS = (3 * RNG.normal(size=(40, 5))).astype(np.float32)
LABELS = RNG.integers(0, 5, 40).astype(np.int32)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_equation_and_at_0_the_cross_entropy(gamma: float) -> None:
    q = softmax(LOGITS.astype(np.float64), axis=1)[np.arange(40), LABELS]
    np.testing.assert_allclose(
        losses.focal(jnp.asarray(LOGITS), jnp.asarray(LABELS), gamma),
        -((1 - q) ** gamma) * np.log(q),
        rtol=2e-4,
        atol=1e-6,
    )
    gradient = jax.grad(lambda z: losses.focal(z, jnp.zeros(3, jnp.int32), gamma).sum())
    for z in (
        [[200.0, 0, 0]] * 3,
        [[0.0, 200, 0]] * 3,
        [[1.0, -jnp.inf, 0]] * 3,
    ):  # sure and right, sure and wrong, masked
        assert np.isfinite(gradient(jnp.asarray(z))).all()


def test_focal_of_one_logit_is_the_binary_one() -> None:
    z, y = LOGITS[:, 0].astype(np.float64), LABELS > 2
    q = np.where(y, expit(z), 1 - expit(z))
    ours = losses.focal(losses.two_logits(jnp.asarray(LOGITS[:, :1])), jnp.asarray(y.astype(np.int32)), 2.0)
    np.testing.assert_allclose(ours, -((1 - q) ** 2) * np.log(q), rtol=1e-4, atol=1e-6)


def test_class_weights_are_scikit_learns_and_weigh_as_torch_does() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    torch = pytest.importorskip("torch")
    op, rows = ops.ClassWeights(), {"targets": LABELS}
    statistics = op.fit(rows)
    balanced = compute_class_weight("balanced", classes=np.arange(5), y=LABELS)
    np.testing.assert_allclose(statistics["weights"], balanced, rtol=1e-6)
    np.testing.assert_allclose(ops.ClassWeights(power=0.5).fit(rows)["weights"], np.sqrt(balanced), rtol=1e-6)
    batch = op.transform({"inputs": jnp.asarray(LOGITS), "targets": jnp.asarray(LABELS)}, None, statistics)
    total, weight = losses.weighted_sums(Classification().score(jnp.asarray(LOGITS), batch), None)["loss"]
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(LABELS).long(), torch.from_numpy(balanced.astype(np.float32))
    )
    assert float(total / weight) == pytest.approx(float(theirs), rel=1e-5)
    with pytest.raises(UserError, match="class number"):
        op.fit({"targets": LOGITS})


def test_ordinal_is_corals_equation() -> None:
    z, y = LOGITS[:, :4].astype(np.float64), LABELS
    above = y[:, None] > np.arange(4)
    expected = -(np.log(expit(z)) * above + np.log(1 - expit(z)) * ~above).sum(1)
    np.testing.assert_allclose(
        losses.ordinal_cross_entropy(jnp.asarray(LOGITS[:, :4]), jnp.asarray(y)), expected, rtol=1e-4
    )


def test_coral_starts_with_falling_probabilities_spread_evenly() -> None:
    model = Coral(MLP(widths=(), outputs=1), ranks=5)
    logits = np.asarray(model.apply(model.init(jax.random.key(0), jnp.zeros((1, 3))), jnp.zeros((1, 3))))
    np.testing.assert_allclose(expit(logits[0]), [0.8, 0.6, 0.4, 0.2], rtol=1e-6)


def test_ranks_are_scored_by_their_distance() -> None:
    logits = jnp.asarray([[1.0, -1, -2], [3, 2, 1], [-1, -2, -3]])
    scores = Ordinal().score(logits, {"targets": jnp.asarray([3, 3, 0])})
    assert np.asarray(scores["mae"]).tolist() == [2, 0, 0]
    assert np.asarray(scores["accuracy"]).tolist() == [0, 1, 1]
    splits = Splits(
        "toy", "files", "here", {"inputs": LOGITS, "targets": LABELS}, {"inputs": LOGITS, "targets": LABELS}
    )
    Ordinal().check(jax.ShapeDtypeStruct((1, 4), np.float32), splits)
    with pytest.raises(UserError, match="0 to 4, and the model tells 0 to 3 apart"):
        Ordinal().check(jax.ShapeDtypeStruct((1, 3), np.float32), splits)


def test_several_labels_are_scored_as_scikit_learn_does() -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    truth = (RNG.random((40, 5)) < 0.4).astype(np.float32)
    scores = MultiLabel().score(jnp.asarray(LOGITS), {"targets": jnp.asarray(truth)})
    p = expit(LOGITS.astype(np.float64))
    by_label = [log_loss(truth[:, k], p[:, k]) for k in range(5)]
    assert float(scores["loss"].mean()) == pytest.approx(np.mean(by_label), rel=1e-5)
    assert float(scores["exact"].mean()) == pytest.approx(accuracy_score(truth, p > 0.5))
    view = View(
        Splits("toy", "", "", {}), MLP(), {}, len, dict, dict, over=lambda rows: iter([({"targets": truth}, p)])
    )  # type: ignore[arg-type]
    assert MultiLabel().measure(view, {})["f1"] == pytest.approx(f1_score(truth, p > 0.5, average="macro"))
    rows = {"inputs": LOGITS, "targets": truth}
    assert complete_facts(Facts(), rows).outputs == 5
    with pytest.raises(UserError, match="of 0 and 1"):
        MultiLabel().check(
            jax.ShapeDtypeStruct((1, 5), np.float32), Splits("toy", "", "", {"inputs": LOGITS, "targets": LABELS})
        )


def test_members_train_each_by_its_own_loss_and_answer_together() -> None:
    members = RNG.normal(size=(40, 3, 5)).astype(np.float32)
    alone = [
        Classification().score(jnp.asarray(members[:, m]), {"targets": jnp.asarray(LABELS)})["loss"] for m in range(3)
    ]
    together = Classification().score(Members(jnp.asarray(members)), {"targets": jnp.asarray(LABELS)})
    np.testing.assert_allclose(together["loss"], np.mean(alone, 0), rtol=1e-5)
    mean = softmax(members.astype(np.float64), axis=2).mean(1)
    averaged = np.asarray(ensembles.average_probabilities(Members(jnp.asarray(members))))
    np.testing.assert_allclose(averaged, np.log(mean), rtol=1e-4, atol=1e-5)
    one = np.asarray(ensembles.average_probabilities(Members(jnp.asarray(members[..., :1]))))
    np.testing.assert_allclose(expit(one), expit(members[..., :1].astype(np.float64)).mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [Ensemble(MLP(widths=(4,), outputs=1), members=3), TabularMLP(widths=(4,), outputs=1, heads=3, embedding_width=2)],
)
def test_an_ensemble_predicts_the_mean_in_the_targets_unit(model: nn.Module) -> None:
    x = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)
    batch = {
        "inputs": x,
        "targets": jnp.arange(6.0),
        "target_mean": jnp.full(6, 10.0),
        "target_deviation": jnp.full(6, 2.0),
    }
    task = Regression()
    variables = task.init(model, jax.random.key(0), batch)
    each: Any = model.apply(variables, x)
    assert each.values.shape == (6, 3, 1)
    assert np.ptp(np.asarray(each.values), axis=1).max() > 1e-4  # they differ
    np.testing.assert_allclose(
        task.apply(model, variables, batch, train=False), 10 + 2 * np.asarray(each.values).mean(1), rtol=1e-5
    )
    outputs, _ = task.apply(model, variables, batch, train=True, rngs={"dropout": jax.random.key(1)}, mutable=[])
    squares = np.square(10 + 2 * np.asarray(each.values)[..., 0] - np.arange(6.0)[:, None])
    np.testing.assert_allclose(task.score(outputs, batch)["mse"], squares.mean(1), rtol=1e-4)
    np.testing.assert_allclose(task.score(outputs, batch)["loss"], squares.mean(1) / 4, rtol=1e-4)


def test_numbers_are_embedded_by_the_quantiles_of_a_normal() -> None:
    """The basis of a number is 1 for every interval below it, a share in its own, 0 above."""
    from scipy.stats import norm

    model = TabularMLP(widths=(), outputs=1, resolution=4, embedding_width=1)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1)))["params"]
    edges = norm.ppf(np.linspace(1e-3, 1 - 1e-3, 5))
    x = 0.3 * edges[1] + 0.7 * edges[2]
    kernel = np.array([1.0, 10, 100, 1000])
    params = {
        "numeric": {"kernel": kernel.reshape(1, 4, 1), "bias": np.zeros((1, 1))},
        "output": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)},
    }
    found = model.apply({"params": jax.tree.map(jnp.float32, params)}, jnp.full((1, 1), x))
    assert float(found[0, 0]) == pytest.approx(1 + 7, rel=1e-5)  # type: ignore[index]


def test_categories_are_embedded_and_their_sizes_come_from_the_data() -> None:
    from fdl.experiment.binding import bind_model

    facts = Facts(categories={"colour": ("blue", "red", "(other)"), "size": ("(other)",)}, outputs=1)
    model = bind_model(TabularMLP(widths=(3,)), facts)
    assert (model.category_sizes, model.outputs) == ((4, 2), 1)
    assert bind_model(TabularMLP(), Facts(outputs=2)).category_sizes == ()  # a table without categories needs none
    x = {"numeric": jnp.zeros((2, 1)), "category": jnp.asarray([[3, 1], [0, 1]])}
    variables = model.init(jax.random.key(0), x)
    a, b = np.asarray(model.apply(variables, x))
    assert a != b


@pytest.mark.parametrize(("outputs", "expected"), [(3, np.log([0.5, 0.3, 0.2])), (1, None)])
def test_the_bias_starts_at_the_training_shares(outputs: int, expected: Any) -> None:
    targets = np.repeat([0, 1, 2], [50, 30, 20]) if outputs == 3 else np.repeat([0, 1], [90, 10])
    model = Ensemble(MLP(widths=(2,), outputs=outputs), members=2)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2)))
    view = View(Splits("toy", "", "", {"targets": targets}), model, variables, len, dict, dict)  # type: ignore[arg-type]
    name = "params/base/output/bias"
    found = StartAtClassShares(bias=name).compute(view)[name]
    assert found.shape == (2, outputs)
    np.testing.assert_allclose(found[1], np.log(10 / 90) if expected is None else expected, rtol=1e-5)
    with pytest.raises(UserError, match="no params/output/bias"):
        StartAtClassShares().compute(view)


def test_cross_entropy_of_a_focal_run_is_reported_beside_it() -> None:
    scores = Classification(focal_gamma=2.0).score(jnp.asarray(LOGITS), {"targets": jnp.asarray(LABELS)})
    np.testing.assert_allclose(scores["cross_entropy"], -log_softmax(LOGITS, axis=1)[np.arange(40), LABELS], rtol=1e-4)
