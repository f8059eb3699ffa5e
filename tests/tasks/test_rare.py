"""A rare class, and anomalies that nothing was trained on: metrics, thresholds and baselines."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import skew

from fdl.data import Splits
from fdl.models import MLP
from fdl.tasks import AnomalyDetection, RareClass
from fdl.tasks.anomaly import ecod
from fdl.tasks.table_baselines import probabilities, regressions
from fdl.tasks.task import View
from fdl.types import Arrays, UserError

RNG = np.random.default_rng(4)


def test_ecod_is_its_equation() -> None:
    train, rows = RNG.exponential(size=(50, 3)) * [1, -1, 1], RNG.normal(size=(7, 3))
    expected = []
    for row in rows:
        left = [-np.log((np.sum(train[:, k] <= row[k]) + 1) / 51) for k in range(3)]
        right = [-np.log((np.sum(train[:, k] >= row[k]) + 1) / 51) for k in range(3)]
        longer = [left[k] if skew(train[:, k]) < 0 else right[k] for k in range(3)]
        expected.append(max(sum(left), sum(right), sum(longer)))
    np.testing.assert_allclose(ecod(train, rows), expected)
    assert np.isfinite(ecod(train, np.full((1, 3), 1e9))).all()


def table(count: int) -> Arrays:
    x = RNG.normal(size=(count, 2)).astype(np.float32)
    return {"inputs": x, "targets": (x[:, 0] * x[:, 1] > 1).astype(np.int32)}


def test_a_rare_class_is_ranked_and_trees_find_what_lines_cannot() -> None:
    train, test = table(800), table(400)
    task = RareClass()
    found = task.baselines(Splits("toy", "", "", train, test))
    assert found["random forest"]["average_precision"] > 0.8 > 0.5 > found["logistic regression"]["average_precision"]
    scores = probabilities(train["inputs"], train["targets"], test["inputs"])["random forest"]
    view = View(
        Splits("toy", "", "", train, test), MLP(), {}, len, dict, dict, over=lambda rows: iter([(rows, scores)])
    )  # type: ignore[arg-type]
    assert task.measure(view, test) == found["random forest"]
    model = MLP(widths=(3,), outputs=1)
    batch = {"inputs": jnp.asarray(test["inputs"])}
    variables = model.init(jax.random.key(0), batch["inputs"])
    logit = np.asarray(model.apply(variables, batch["inputs"]))[:, 0]
    np.testing.assert_allclose(task.decode(model, variables, batch), 1 / (1 + np.exp(-logit)), rtol=1e-5)
    with pytest.raises(UserError, match="the test split of toy needs rows of both classes"):
        task.check(
            jax.ShapeDtypeStruct((1, 2), np.float32),
            Splits("toy", "", "", train, {**test, "targets": 0 * test["targets"]}),
        )


def test_anomalies_weigh_nothing_and_the_threshold_is_of_normal_training_rows() -> None:
    task = AnomalyDetection(alarms=0.1)
    inputs = jnp.asarray([[1.0, 2], [3, 4]])
    value, weight = task.score(jnp.zeros((2, 2)), {"inputs": inputs, "targets": jnp.asarray([0, 1])})["loss"]
    assert np.asarray(value).tolist() == [2.5, 12.5]
    assert np.asarray(weight).tolist() == [1, 0]
    errors, labels = np.arange(110.0), np.repeat([0, 1], [100, 10])
    rows = {"inputs": errors[:, None], "targets": labels}
    view = View(
        Splits("toy", "", "", rows, rows),
        MLP(),
        {},
        len,
        dict,
        dict,
        over=lambda part: iter([(part, part["inputs"][:, 0])]),
    )  # type: ignore[arg-type]
    assert task.threshold(view) == pytest.approx(np.quantile(np.arange(100), 0.9))
    found = task.measure(view, rows)
    assert (found["auroc"], found["recall"], found["precision"]) == (1, 1, 0.5)


def test_regressions_of_tables_beat_a_line_on_a_curve() -> None:
    x = RNG.uniform(-2, 2, size=(400, 1)).astype(np.float32)
    found = regressions(x[:300], np.square(x[:300, 0].astype(np.float64)), x[300:])
    assert set(found) == {"gradient boosting", "support vector machine"}
    for predicted in found.values():
        assert np.abs(predicted - x[300:, 0] ** 2).mean() < 0.2
    assert regressions(x, np.zeros((400, 2)), x) == {}
