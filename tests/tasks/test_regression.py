"""Regression with targets of any scale and of several numbers, on inputs of every kind, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.linear_model import LinearRegression

from fdl.data import ops
from fdl.data.columns import Windows
from fdl.data.splits import Facts, Splits
from fdl.tasks import Regression, View
from fdl.types import Arrays, UserError

RNG = np.random.default_rng(0)
NO_FACTS = Facts()


class Constant(nn.Module):
    """Gives the same number for every row, whatever it is given."""

    value: float = 0.5
    outputs: int = 1

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        return jnp.full((len(x), self.outputs), self.value)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_the_net_is_trained_in_deviations_and_all_else_is_in_the_targets_unit(shape: tuple[int, ...]) -> None:
    targets = (200_000 + 40_000 * RNG.normal(size=shape)).astype(np.float32)
    op = ops.ScaleTargets()
    batch = op.transform(
        {"inputs": jnp.zeros((4, 2)), "targets": jnp.asarray(targets)}, None, op.fit({"targets": targets})
    )
    model, mean, deviation = Constant(outputs=targets.size // 4), targets.mean(0), targets.std(0)
    for loss, expected in (("mse", np.square), ("mae", np.abs)):
        task = Regression(loss=loss)  # type: ignore[arg-type]
        outputs = task.apply(model, {}, batch)
        np.testing.assert_allclose(
            np.reshape(outputs, shape), np.broadcast_to(mean + 0.5 * deviation, shape), rtol=1e-6
        )
        scores = task.score(outputs, batch)
        errors = np.reshape(np.asarray(outputs), shape) - targets
        np.testing.assert_allclose(scores["mse"], np.square(errors).reshape(4, -1).mean(1), rtol=1e-4)
        np.testing.assert_allclose(scores["mae"], np.abs(errors).reshape(4, -1).mean(1), rtol=1e-4)
        np.testing.assert_allclose(scores["loss"], expected(errors / deviation).reshape(4, -1).mean(1), rtol=1e-3)
    outputs, stats = Regression().apply(model, {}, batch, mutable=["batch_stats"])
    np.testing.assert_allclose(np.reshape(outputs, shape)[0], mean + 0.5 * deviation, rtol=1e-6)
    assert not stats
    with pytest.raises(UserError, match=r"set model\.outputs"):
        Regression().apply(Constant(outputs=7), {}, batch)


def test_outputs_that_would_broadcast_are_refused() -> None:
    for outputs, targets in (((4, 3), (4,)), ((4, 1), (4, 3)), ((3,), (4,)), ((4, 4), (4, 2))):
        with pytest.raises(ValueError, match="regression needs outputs"):
            Regression().score(jnp.zeros(outputs), {"targets": jnp.zeros(targets)})
    scores = Regression().score(jnp.ones((4, 6)), {"targets": jnp.zeros((4, 2, 3))})
    np.testing.assert_array_equal(scores["mse"], np.ones(4))


def splits_of(inputs: Any, targets: Any, facts: Facts = NO_FACTS) -> Splits:
    rows = {"inputs": inputs, "targets": targets}
    return Splits("set", "", "", rows, rows, facts=facts)


def test_baselines_of_several_targets_equal_sklearns() -> None:
    inputs, targets = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 2)).astype(np.float32)
    found = Regression().baselines(splits_of(inputs, targets))
    errors = LinearRegression().fit(inputs, targets).predict(inputs) - targets
    assert found["linear regression"]["mse"] == pytest.approx(np.square(errors).mean(), rel=1e-4)
    assert found["mean of training"]["rmse"] == pytest.approx(np.sqrt(targets.var(0).mean()), rel=1e-4)


@pytest.mark.parametrize(
    "inputs",
    [{"left": np.zeros((9, 2)), "right": np.zeros((9, 3))}, np.zeros((9, 8, 8, 1), np.uint8), np.zeros((9, 3000))],
    ids=["two inputs", "pictures", "a wide table"],
)
def test_inputs_that_are_no_small_table_have_the_mean_alone_for_a_baseline(inputs: Any) -> None:
    found = Regression().baselines(splits_of(inputs, np.arange(9, dtype=np.float32)))
    assert list(found) == ["mean of training"]
    assert found["mean of training"]["mse"] == pytest.approx(np.var(np.arange(9)))


@pytest.mark.parametrize("several", [False, True])
def test_a_series_is_held_against_its_last_value(several: bool) -> None:
    series = RNG.normal(size=(40, 3)).astype(np.float32)
    starts, places = np.arange(30), [2, 0] if several else 2
    ahead = series[:, places]
    facts = Facts(numeric=("a", "b", "c"), target="c, a" if several else "c")
    splits = splits_of(Windows(series, starts, 4), Windows(ahead, starts + 4, 3), facts)
    errors = [series[s + 3, places][None] - ahead[s + 4 : s + 7] for s in starts]
    found = Regression().baselines(splits)
    assert found["last value"]["mse"] == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert "linear regression" not in found


def view_of(splits: Splits) -> View:
    def outputs(rows: Arrays) -> np.ndarray:
        return np.zeros((len(rows["inputs"]), 3), np.float32)

    unused: Any = None
    return View(
        splits=splits, model=unused, variables={}, over=unused, outputs=outputs, prepared=unused, augmented=unused
    )


def test_several_targets_have_panels_and_predictions(tmp_path: Path) -> None:
    targets = RNG.normal(size=(20, 3)).astype(np.float32)
    splits = splits_of(RNG.normal(size=(20, 2)), targets, Facts(numeric=("a", "b"), input_shape=(2,)))
    titles = [panel.title for draw in Regression().panels(view_of(splits)) if (panel := draw()) is not None]
    assert titles == ["Predicted and true", "Errors"]
    (tmp_path / "in.csv").write_text("b,a\n1,2\n3,4\n")
    (written,) = Regression().predict(view_of(splits), str(tmp_path / "in.csv"), tmp_path / "out")
    assert written.read_text() == "b,a,prediction_1,prediction_2,prediction_3\n1,2,0,0,0\n3,4,0,0,0\n"
