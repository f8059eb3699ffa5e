"""Gradient checking: right gradients pass in float64, wrong ones are named, kinks are set aside."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fdl.data import Data, Request, pipeline, planar
from fdl.distributed import layouts
from fdl.experiment import Experiment, load_experiment
from fdl.inspect import float64, gradients
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.train import program
from fdl.types import RunError


def built(experiment: Experiment) -> program.Program:
    data = pipeline.load(experiment.data, Request(offline=True), experiment.num_examples)
    return program.build(experiment, data, 0, layouts.choose_layout("jit", devices=jax.devices()[:1]))


def on_moons(model: nn.Module) -> program.Program:
    return built(
        Experiment(
            data=Data(load=planar.moons), model=model, task=Classification(), optimizer=Optimizer(), steps="1epochs",
            batch_size=8,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("digits_cnn", ["model.filters=4,8", "model.dense=8"]),  # convolutions, pools, BatchNorm, dropout, augmentation
        *[
            ("shakespeare_lstm", ["data.source=builtin", "data.load.length=12", "model.width=6", f"model.cell={cell}"])
            for cell in ("lstm",)
        ],
    ],
)
def test_the_gradients_of_the_experiments_are_right(name: str, settings: list[str]) -> None:
    lines: list[str] = []
    checked = gradients.check(built(load_experiment(name, settings)))
    gradients.show(checked, lines.append)
    assert {array.verdict for array in checked.arrays} <= {"right", "zero"}
    assert checked.worst.difference < 1e-7
    assert max(array.float32 for array in checked.arrays if array.verdict == "right") < 1e-3
    assert "gradients right" in lines[-1]


@jax.custom_vjp
def doubled(x: jax.Array) -> jax.Array:
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, dy: (2.002 * dy,))


class Planted(nn.Module):
    """A tenth of a percent too much reaches the first layer."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = doubled(jnp.tanh(nn.Dense(5, name="before")(x)))
        return nn.Dense(1, name="after")(x)


def test_a_wrong_backward_pass_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    checked = gradients.check(on_moons(Planted()))
    verdicts = {array.name: array.verdict for array in checked.arrays}
    assert verdicts == {
        "after/bias": "right", "after/kernel": "right", "before/bias": "wrong", "before/kernel": "wrong",
    }  # fmt: skip
    assert checked.worst.difference == pytest.approx(5e-4, rel=0.01)
    with pytest.raises(RunError, match=r"gradient of before/\w+ is wrong \(as are 1 more\)"):
        gradients.show(checked, print)
    assert "WRONG" in capsys.readouterr().out


class Missing(nn.Module):
    """The gradient of one unit alone is left out."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (2000,))
        stopped = jnp.concatenate([lax.stop_gradient(bias[:1]), bias[1:]])
        return nn.Dense(1, name="output")(jnp.tanh(nn.Dense(2000, name="dense", use_bias=False)(x) + stopped[None]))


def test_one_wrong_entry_among_thousands_is_found() -> None:
    checked = gradients.check(on_moons(Missing()))
    assert {array.name for array in checked.arrays if array.verdict == "wrong"} == {"bias"}


@jax.custom_vjp
def halved(x: jax.Array) -> jax.Array:
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, dy: (dy / 0,))


class Infinite(nn.Module):
    """A gradient that is no number."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(1, name="output")(halved(nn.Dense(3, name="before")(x)))


def test_a_gradient_that_is_not_finite_is_wrong() -> None:
    checked = gradients.check(on_moons(Infinite()))
    assert {array.name for array in checked.arrays if array.verdict == "wrong"} == {"before/bias", "before/kernel"}


class Jagged(nn.Module):
    """A saw with teeth finer than any step: there is no slope to compare with."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (1,))
        return nn.Dense(1, name="output")(x) + 0.1 * jnp.abs((bias * 3.1e5) % 2.0 - 1)[None]


def test_a_kink_is_counted_and_not_called_an_error() -> None:
    checked = gradients.check(on_moons(Jagged()))
    verdicts = {array.name: array.verdict for array in checked.arrays}
    assert verdicts["bias"] == "kinks"
    assert verdicts["output/kernel"] == "right"
    gradients.show(checked)


def test_a_net_of_zeros_and_one_in_bfloat16_can_be_checked() -> None:
    zeros = gradients.check(on_moons(MLP(widths=(5, 2), outputs=1, initializer="zeros")))
    assert not {array.verdict for array in zeros.arrays} & {"wrong"}
    coarse = gradients.check(on_moons(MLP(widths=(5,), outputs=2, activation="tanh", dtype="bfloat16")))
    assert {array.verdict for array in coarse.arrays} == {"right"}
    assert max(array.float32 for array in coarse.arrays) > 1e-4  # what the step computes in bfloat16


# ---- float64 --------------------------------------------------------------------------------------------------------


def in_float64(function: object, *arguments: np.ndarray) -> np.ndarray:
    wide = float64.widened(function, *[a.astype(np.float32) if a.dtype == np.float64 else a for a in arguments])
    with float64.enabled():
        return np.asarray(jax.jit(wide)(*arguments))


def test_nothing_is_rounded_to_single_precision_on_the_way() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 4)), rng.standard_normal((4, 4))

    def function(x: jax.Array, w: jax.Array) -> jax.Array:
        narrow = (x @ w).astype(jnp.bfloat16).astype(jnp.float32)
        h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ w), None), narrow, length=3)
        h = lax.cond(h.sum() > 1e9, lambda h: h, lambda h: h * jnp.float32(0.5), h)
        return lax.while_loop(lambda c: c.sum() > 1e-3, lambda c: c * 0.5, (h * h))

    h = x @ w
    for _ in range(3):
        h = np.tanh(h @ w)
    h = (h / 2) ** 2
    while h.sum() > 1e-3:
        h = h / 2
    np.testing.assert_allclose(in_float64(function, x, w), h, rtol=1e-13)


def test_an_embedding_and_its_gradient_are_widened() -> None:
    table, rows = np.random.default_rng(0).standard_normal((5, 3)), np.array([1, 1, 4], np.int32)
    found = in_float64(jax.grad(lambda t, r: (jnp.take(t, r, axis=0) ** 3).sum()), table, rows)
    expected = np.zeros_like(table)
    np.add.at(expected, rows, 3 * table[rows] ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_python_called_back_is_given_float64() -> None:
    seen = []

    def host(x: np.ndarray) -> np.ndarray:
        seen.append(np.asarray(x).dtype)
        return np.asarray(x) / 3

    x = np.array([1.0, 2.0])
    found = in_float64(lambda x: jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x), x)
    np.testing.assert_allclose(found, x / 3, rtol=1e-15)
    assert seen[-1] == np.float64


def test_random_numbers_stay_those_of_the_step() -> None:
    key = jax.random.key(3)

    def dropped(x: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 0.4, x.shape), x, 0) + jax.random.uniform(key, x.shape)

    x = np.arange(50.0)
    np.testing.assert_allclose(in_float64(dropped, x), dropped(jnp.asarray(x, jnp.float32)), rtol=1e-6)


def test_the_mode_is_left_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), float64.enabled():
        _ = 1 / 0
    assert jnp.zeros(1).dtype == jnp.float32
    assert functools.reduce(jnp.add, [jnp.ones(1)] * 2).dtype == jnp.float32
