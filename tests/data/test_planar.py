"""The toy problems of the plane against scikit-learn and their equations, and what is drawn of models trained on them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.datasets import make_circles, make_moons

from fdl.data import Data, Request, planar
from fdl.data.splits import Facts, Splits
from fdl.experiment import Experiment
from fdl.experiment.overrides import override
from fdl.models import MLP
from fdl.models.layers import initializer
from fdl.optim import Optimizer
from fdl.tasks import Classification, View
from fdl.tasks.panels import figures
from fdl.tasks.panels.activation import activations
from fdl.tasks.panels.planar import boundary, decision_boundary
from fdl.types import UserError

SOURCES = [planar.moons, planar.circles, planar.flower, planar.fields, planar.blobs, planar.spirals]


@pytest.mark.parametrize("count", [300, 7])
def test_without_noise_moons_and_circles_are_those_of_scikit_learn(count: int) -> None:
    moons = planar.moons(Request(), examples=count, noise=0).train
    circles = planar.circles(Request(), examples=count, noise=0, factor=0.6).train
    for found, (points, labels) in (
        (moons, make_moons(count, shuffle=False)),
        (circles, make_circles(count, shuffle=False, factor=0.6)),
    ):
        np.testing.assert_allclose(found["inputs"], points, atol=1e-6)
        np.testing.assert_array_equal(found["targets"], labels)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.__name__)
def test_the_points_are_the_data_set_and_no_stand_in(source: functools.partial) -> None:
    splits = source(Request(), examples=100, test_examples=41)
    for rows, size in ((splits.train, 100), (splits.test, 41)):
        assert (rows["inputs"].dtype, rows["inputs"].shape) == (np.float32, (size, 2))
        assert rows["targets"].dtype == np.int32
        counts = np.bincount(rows["targets"], minlength=len(splits.classes))
        assert len(counts) == len(splits.classes)
        assert counts.max() - counts.min() <= 1
    assert splits.source == "builtin"
    assert "stand-in" not in splits.name + splits.where
    again = source(Request(source="builtin"), examples=100, test_examples=17)
    np.testing.assert_array_equal(splits.train["inputs"], again.train["inputs"])  # whatever the test split's size
    assert not np.isin(splits.train["inputs"], splits.test["inputs"]).all(1).any()
    with pytest.raises(UserError, match="source=tfds"):
        source(Request(source="tfds"))


def test_noise_has_the_deviation_asked_for() -> None:
    clean, noisy = (planar.moons(Request(), examples=20_000, noise=noise).train["inputs"] for noise in (0, 0.2))
    np.testing.assert_allclose((noisy - clean).std(0), 0.2, rtol=0.03)
    np.testing.assert_allclose((noisy - clean).mean(0), 0, atol=0.006)
    cloud = planar.blobs(Request(), examples=30_000, classes=3, deviation=0.5).train
    first = cloud["inputs"][cloud["targets"] == 0]
    np.testing.assert_allclose(first.mean(0), [3, 0], atol=0.02)
    np.testing.assert_allclose(first.std(0), 0.5, rtol=0.03)


def test_a_flower_without_noise_is_a_rose() -> None:
    rows = planar.flower(Request(), noise=0).train
    x, y = rows["inputs"].T.astype(float)
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    np.testing.assert_allclose(radius, np.abs(4 * np.sin(4 * angle)), atol=2e-5)  # a negative radius turns both by pi


def test_fields_are_divided_by_the_diagonal_but_for_the_flipped() -> None:
    clean = planar.fields(Request(), overlap=0, flipped=0).train
    np.testing.assert_array_equal(clean["targets"], clean["inputs"][:, 1] > clean["inputs"][:, 0])
    mixed = planar.fields(Request(), examples=20_000, overlap=0, flipped=0.1).train
    wrong = mixed["targets"] != (mixed["inputs"][:, 1] > mixed["inputs"][:, 0])
    assert wrong.mean() == pytest.approx(0.1, abs=0.01)


def test_their_arguments_are_settings() -> None:
    experiment = Experiment(
        data=Data(load=planar.moons), model=MLP(outputs=1), task=Classification(), optimizer=Optimizer(), steps="1epochs",
        batch_size=10,
    )  # fmt: skip
    changed = override(experiment, "data.load.noise=0", "data.load.examples=12")
    found = changed.data.load(Request())
    np.testing.assert_allclose(found.train["inputs"], make_moons(12, shuffle=False)[0], atol=1e-6)
    with pytest.raises(UserError, match="noise"):
        override(experiment, "data.load.noise=-1")


# ---- figures --------------------------------------------------------------------------------------------------------


class Half(nn.Module):
    """Sure of class 1 to the right of `border`, and of class 0 to its left."""

    outputs: int
    border: float = 0.0

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        logit = 100 * (x[:, :1] - self.border)
        return logit if self.outputs == 1 else jnp.concatenate([-logit / 2, logit / 2], 1)


def half_view(outputs: int, border: float = 0.0) -> View:
    rng = np.random.default_rng(0)

    def rows(count: int) -> dict[str, np.ndarray]:
        inputs = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        return {"inputs": inputs, "targets": (inputs[:, 0] > 0).astype(np.int32)}

    splits = Splits("halves", "builtin", "here", rows(60), rows(40), facts=Facts(classes=("left", "right")))
    model = Half(outputs, border)
    return View(splits, model, {}, lambda r: model.apply({}, r["inputs"]), dict, dict)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_boundary_shows_the_classes_and_circles_the_wrong(outputs: int) -> None:
    view = half_view(outputs, border=0.3)
    _, axes = figures.new(3)
    boundary(axes[0, 0], view, "halves", split="test")
    ax = axes[0, 0]
    ground = np.asarray(ax.images[0].get_array())
    colours = [
        [int(figures_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        for figures_colour in (figures.BLUE, figures.ORANGE)
    ]
    for column, colour in ((0, colours[0]), (-1, colours[1])):
        np.testing.assert_allclose(
            ground[:, column], np.broadcast_to(0.5 + np.array(colour) / 2, (len(ground), 3)), atol=1e-6
        )
    points, targets = view.splits.test["inputs"], view.splits.test["targets"]
    drawn = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections if c.get_label() in ("left", "right")}
    np.testing.assert_allclose(drawn["left"], points[targets == 0])
    np.testing.assert_allclose(drawn["right"], points[targets == 1])
    wrong = points[(points[:, 0] > 0) & (points[:, 0] < 0.3)]
    np.testing.assert_allclose(np.asarray(ax.collections[-1].get_offsets()), wrong)
    assert len(wrong)


def test_the_panel_is_for_points_alone_and_bears_a_model_that_sees_one_class() -> None:
    view = half_view(1, border=9.0)
    panel = decision_boundary(view)
    assert panel is not None
    assert figures.png(panel.figure, 40)
    pictures = dict(view.splits.train, inputs=np.zeros((60, 8, 8, 1), np.uint8))
    assert decision_boundary(dataclasses.replace(view, splits=dataclasses.replace(view.splits, train=pictures))) is None
    tables = dict(view.splits.train, inputs={"numeric": np.zeros((60, 2), np.float32)})
    assert decision_boundary(dataclasses.replace(view, splits=dataclasses.replace(view.splits, train=tables))) is None


def test_many_classes_can_be_drawn() -> None:
    splits = planar.spirals(Request(), classes=11, examples=110, test_examples=110)
    model = MLP(widths=(4,), outputs=11)
    variables = model.init(jax.random.key(0), splits.train["inputs"])
    panel = decision_boundary(View(splits, model, variables, lambda r: model.apply(variables, r["inputs"]), dict, dict))
    assert panel is not None
    assert figures.png(panel.figure, 40)


def test_the_activations_are_drawn_with_their_derivatives() -> None:
    figure = activations(reach=3.0).figure
    axes = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert {"relu", "leaky relu", "tanh", "sigmoid", "linear"} <= set(axes)
    curves = {name: {line.get_label(): line for line in ax.lines} for name, ax in axes.items()}
    x = np.asarray(curves["tanh"]["f'"].get_xdata())
    np.testing.assert_allclose(curves["tanh"]["f'"].get_ydata(), 1 - np.tanh(x) ** 2, atol=1e-6)
    slopes = np.asarray(curves["relu"]["f'"].get_ydata())
    np.testing.assert_array_equal(slopes[x < -0.1], 0)
    np.testing.assert_array_equal(slopes[x > 0.1], 1)


def test_a_large_start_has_a_deviation_of_ten() -> None:
    drawn = initializer("large")(jax.random.key(0), (300, 300), jnp.float32)
    assert float(drawn.std()) == pytest.approx(10, rel=0.02)
    assert not np.any(initializer("zeros")(jax.random.key(0), (3, 3), jnp.float32))
