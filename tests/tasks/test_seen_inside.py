"""Panels of what a net sees: Grad-CAM against the equation by hand, the other panels drawn where they apply."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fdl.data import Facts, Splits
from fdl.tasks import View
from fdl.tasks.panels import seen_inside
from fdl.tasks.panels.answers import collect_answers

RNG = np.random.default_rng(0)


class Net(nn.Module):
    """Maps, their means, a matrix: the gradient of a logit by a map is its weight / (h * w)."""

    outputs: int = 3

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.Conv(5, (3, 3), name="maps")(x)
        return nn.Dense(self.outputs, name="output")(nn.relu(x).mean((1, 2)))


def view_of(model: Any, inputs: np.ndarray, targets: np.ndarray) -> View:
    variables = model.init(jax.random.key(0), jnp.asarray(inputs[:1], jnp.float32))
    rows = {"inputs": inputs, "targets": targets}
    splits = Splits("toy", "builtin", "made here", rows, rows, facts=Facts(classes=("a", "b", "c")))

    def prepared(rows: Any) -> Any:
        return {**rows, "inputs": np.asarray(rows["inputs"], np.float32)}

    def outputs(rows: Any) -> Any:
        return np.asarray(model.apply(variables, prepared(rows)["inputs"]))

    return View(splits, model, variables, outputs, prepared, prepared)


@pytest.fixture(scope="module")
def seen() -> View:
    inputs = RNG.integers(0, 255, (70, 8, 8, 3)).astype(np.uint8)
    return view_of(Net(), inputs, RNG.integers(0, 3, 70).astype(np.int32))


def test_grad_cam_is_the_papers_equation(seen: View) -> None:
    inputs = np.asarray(seen.splits.train["inputs"][:4], np.float32)
    assert seen_inside.last_map(seen, inputs) == ("maps",)
    classes = np.array([0, 2, 1, 1])
    found = seen_inside.class_activation(seen, ("maps",), inputs, classes)
    params = jax.device_get(seen.variables["params"])
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = sum(
        np.einsum("bhwc,co->bhwo", padded[:, i : i + 8, j : j + 8], params["maps"]["kernel"][i, j])
        for i in range(3)
        for j in range(3)
    )
    # The mean over the map of d logit / d map: the class's weight where ReLU is open, over h * w.
    weights = (maps > 0).mean((1, 2)) * params["output"]["kernel"].T[classes] / 64
    heat = np.maximum(np.einsum("bhwo,bo->bhw", maps, weights), 0)
    largest = heat.max((1, 2), keepdims=True)
    assert (largest > 0).sum() >= 2
    np.testing.assert_allclose(found, heat / np.where(largest > 0, largest, 1), atol=1e-4)


def test_each_panel_is_drawn(seen: View) -> None:
    answers = collect_answers(seen)
    cam, plane, filters = (
        seen_inside.grad_cam(seen, answers), seen_inside.feature_plane(seen, answers), seen_inside.first_filters(seen),
    )  # fmt: skip
    assert cam
    assert plane
    assert filters
    assert cam.title == "Where it looked"
    assert len(cam.figure.axes) == 16
    assert "70 test examples" in plane.caption
    assert "(5 numbers), by t-SNE" in plane.caption
    assert "The 5 kernels of maps, 3 x 3" in filters.caption


def test_the_map_of_few_examples_is_that_of_their_principal_components() -> None:
    features = RNG.normal(size=(20, 2)) * [1, 9] @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    plane, how = seen_inside._plane(features)
    assert how == "by their two principal components"
    distances = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (plane, features)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert plane[:, 0].std() > plane[:, 1].std()


def test_a_net_that_is_given_no_pictures_has_none_of_them() -> None:
    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            return nn.Dense(3)(x)

    view = view_of(Dense(), RNG.normal(size=(30, 4)).astype(np.float32), RNG.integers(0, 3, 30).astype(np.int32))
    answers = collect_answers(view)
    assert seen_inside.grad_cam(view, answers) is seen_inside.feature_plane(view, answers) is None
    assert seen_inside.first_filters(view) is None
