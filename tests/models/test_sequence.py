"""The net over sequences, and what is drawn of how far back it reaches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.data import Request, ops, synthetic
from fdl.data.splits import Splits
from fdl.models import RecurrentNet
from fdl.tasks import View
from fdl.tasks.panels import memory
from fdl.types import UserError


def test_the_adding_problem_is_as_published() -> None:
    splits = synthetic.adding(Request(), length=20, train=3000, validation=10, test=10)
    inputs, targets = splits.train["inputs"], splits.train["targets"]
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert (marks[:, :10].sum(1) == 1).all()
    assert (marks[:, 10:].sum(1) == 1).all()
    np.testing.assert_allclose((numbers * marks).sum(1), targets, rtol=1e-6)
    assert np.mean((targets - 1) ** 2) == pytest.approx(1 / 6, abs=0.01)
    again = synthetic.adding(Request(), length=20, train=3000, validation=10, test=10)
    np.testing.assert_array_equal(again.train["inputs"], inputs)
    with pytest.raises(UserError, match="at least 2"):
        synthetic.adding(Request(), length=1)


def test_pictures_as_sequences() -> None:
    pictures = jnp.arange(2 * 3 * 4).reshape(2, 3, 4, 1)
    rows = ops.PictureSequence("rows").transform({"inputs": pictures}, None, {})["inputs"]
    pixels = ops.PictureSequence("pixels").transform({"inputs": pictures}, None, {})["inputs"]
    np.testing.assert_array_equal(rows[1, 2], pictures[1, 2, :, 0])
    np.testing.assert_array_equal(pixels[1, :, 0], pictures[1].ravel())


def view_of(model: Any, inputs: np.ndarray) -> View:
    rows = {"inputs": inputs, "targets": np.zeros(len(inputs), np.float32)}
    variables = model.init(jax.random.key(1), inputs)
    return View(
        Splits("x", "builtin", "here", rows, rows), model, variables, lambda given: None, lambda given: given, dict
    )


def test_gradient_norms_equal_finite_differences_and_vanish_in_a_contracting_net() -> None:
    inputs = np.random.default_rng(0).normal(size=(2, 6, 2)).astype(np.float32)
    view = view_of(RecurrentNet(cell="rnn", width=3, outputs=1), inputs)
    norms = memory.gradient_norms(view, view.variables, inputs)
    step, expected = 1e-2, np.zeros(6)
    for t in range(6):
        slopes = []
        for column in range(2):
            change = np.zeros_like(inputs)
            change[:, t, column] = step
            both = [np.asarray(view.model.apply(view.variables, inputs + sign * change)) for sign in (1, -1)]
            slopes.append((both[0] - both[1])[:, 0] / (2 * step))
        expected[t] = np.linalg.norm(slopes, axis=0).mean()
    np.testing.assert_allclose(norms, expected, rtol=2e-2)
    halved = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0.2 if "recurrent" in str(path[-1]) else leaf, view.variables
    )
    vanishing = memory.gradient_norms(view, halved, inputs)
    assert vanishing[0] < 0.21**5 * vanishing[-1] * 2  # five steps back, each times at most 0.2


def test_nets_are_compared_before_and_after_training() -> None:
    inputs = np.zeros((3, 5, 2), np.float32)
    views = {cell: view_of(RecurrentNet(cell=cell, width=3, outputs=1), inputs) for cell in ("rnn", "lstm")}
    panel = memory.compare(views)
    assert panel is not None
    assert panel.figure is not None
    assert [[line.get_label() for line in ax.lines] for ax in panel.figure.axes] == [["rnn", "lstm"]] * 2
    assert memory.compare({}) is None
