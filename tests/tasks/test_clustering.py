"""Deep embedded clustering: assignments and targets beside their equations, matching beside brute force, k-means repeatable."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.data.encoders import RowNumbers
from fdl.data.splits import Facts
from fdl.experiment.clustering import KMeansCentres, TargetDistribution
from fdl.models import ClusteringAutoencoder
from fdl.tasks import Clustering, View
from fdl.tasks.clustering import clustering_metrics, kmeans, soft_assignments, target_distribution

RNG = np.random.default_rng(0)


def test_matched_accuracy_is_the_best_of_all_matchings() -> None:
    classes, clusters = RNG.integers(0, 4, (2, 80))
    best = max((np.array(match)[clusters] == classes).mean() for match in itertools.permutations(range(4)))
    assert clustering_metrics(clusters, classes)["accuracy"] == pytest.approx(best)
    renamed = np.array([2, 0, 3, 1])[classes]
    assert clustering_metrics(renamed, classes) == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})
    assert clustering_metrics(np.zeros(80, int), classes)["nmi"] == pytest.approx(
        0, abs=1e-9
    )  # fewer clusters than classes


def test_assignments_and_targets_are_the_papers_equations() -> None:
    distances = RNG.random((6, 3)) * 4
    q = np.asarray(soft_assignments(jnp.asarray(distances)))
    for i, k in itertools.product(range(6), range(3)):
        assert q[i, k] == pytest.approx(
            (1 + distances[i, k]) ** -1 / sum((1 + d) ** -1 for d in distances[i]), rel=1e-5
        )
    p, frequency = target_distribution(q.astype(np.float64)), q.sum(0)
    for i, k in itertools.product(range(6), range(3)):
        expected = (q[i, k] ** 2 / frequency[k]) / sum(q[i, j] ** 2 / frequency[j] for j in range(3))
        assert p[i, k] == pytest.approx(expected, rel=1e-5)


def test_the_divergence_counts_from_the_first_targets_on_and_by_the_rows_number() -> None:
    torch = pytest.importorskip("torch")
    task, x = Clustering(clustering_weight=0.5), RNG.random((4, 5, 5, 1)).astype(np.float32)
    model = ClusteringAutoencoder(shape=(5, 5, 1), filters=(), dense=(6,), latent=2, clusters=3, rows=9)
    variables = model.init(jax.random.key(0), x)
    batch = {"inputs": x, "row": np.array([8, 0, 3, 3], np.int32)}

    def scores(variables: Any) -> Any:
        outputs, kept = task.apply(model, variables, batch, train=True, mutable=["clustering"])
        np.testing.assert_array_equal(kept["clustering"]["targets"], variables["clustering"]["targets"])
        return outputs, task.score(outputs, batch)

    _, before = scores(variables)
    np.testing.assert_array_equal(before["divergence"], 0)
    np.testing.assert_array_equal(before["loss"], before["reconstruction"])
    targets = RNG.dirichlet([1, 1, 1], 9).astype(np.float32)
    outputs, after = scores({**variables, "clustering": {"targets": jnp.asarray(targets)}})
    q = torch.tensor(np.asarray(soft_assignments(outputs["distances"])))
    expected = torch.nn.functional.kl_div(q.log(), torch.tensor(targets[batch["row"]]), reduction="none").sum(1).numpy()
    np.testing.assert_allclose(after["divergence"], expected, rtol=1e-4)
    np.testing.assert_allclose(after["loss"], after["reconstruction"] + 0.5 * expected, rtol=1e-4)
    evaluated = task.score(task.apply(model, variables, batch, train=False), batch)
    assert set(evaluated) == {"loss", "reconstruction"}


def test_kmeans_is_the_same_every_time_and_finds_what_is_apart() -> None:
    truth = np.repeat(np.arange(3), 40)
    points = np.array([[0, 0], [9, 0], [0, 9]])[truth] + RNG.normal(size=(120, 2))
    clusters, centres = kmeans(points.astype(np.float32), 3, starts=2, seed=0)
    assert clustering_metrics(clusters, truth)["accuracy"] == 1
    again = kmeans(points.astype(np.float32), 3, starts=2, seed=0)
    np.testing.assert_array_equal(again[1], centres)


def test_updates_replace_centres_and_targets_by_what_the_codes_say() -> None:
    truth = np.repeat(np.arange(3), 10)
    codes = np.array([[0, 0], [9, 0], [0, 9]])[truth] + RNG.normal(size=(30, 2))
    q = RNG.dirichlet([1, 1, 1], 30)

    def over(rows: Any) -> Any:
        for part in (slice(0, 20), slice(20, 30)):
            yield rows, {"code": codes[part], "assignments": q[part]}

    splits: Any = type("Held", (), {"train": {}})
    variables = {"params": {"centres": np.zeros((3, 2))}}
    view = View(splits, None, variables, None, None, None, over=over)  # type: ignore[arg-type]
    centres = KMeansCentres(starts=2).compute(view)["params/centres"]
    expected = np.stack([codes[truth == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(
        centres[np.lexsort(centres.round().T)], expected[np.lexsort(expected.round().T)], rtol=1e-5
    )
    targets = TargetDistribution().compute(view)["clustering/targets"]
    np.testing.assert_allclose(targets, target_distribution(q), rtol=1e-5)
    assert targets.dtype == centres.dtype == np.float32


def test_rows_are_numbered_and_their_number_becomes_a_fact() -> None:
    op, rows = RowNumbers(), {"inputs": np.zeros((5, 2))}
    np.testing.assert_array_equal(op.encode(rows, op.fit(rows))["row"], np.arange(5))
    assert op.update_facts(Facts(), op.fit(rows)).value("rows") == 5
