"""Optimizers against their update rules written out in NumPy, over several steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.optim import Group, Optimizer
from fdl.types import UserError

STEPS, RATE = 5, 0.1
RNG = np.random.default_rng(0)
START = {
    "conv1": {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)},
    "conv10": {"kernel": RNG.normal(size=(2, 2))},
}
START = jax.tree.map(lambda x: x.astype(np.float32), START)
GRADIENTS = [jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), START) for _ in range(STEPS)]


def run(optimizer, gradients=GRADIENTS, total=STEPS):
    tx, _ = optimizer.build(total)
    params, state = START, tx.init(START)

    @jax.jit
    def step(params, state, gradient, at):
        updates, state = tx.update(gradient, state, params, step=at)
        return optax.apply_updates(params, updates), state

    for at, gradient in enumerate(gradients):
        params, state = step(params, state, gradient, at)
    return params


def numpy_direction(rule, g, memory, t, rms_decay=0.9):
    if rule == "sgd":
        return g
    if rule in ("momentum", "nesterov"):
        memory["v"] = 0.9 * memory.get("v", 0) + g
        return g + 0.9 * memory["v"] if rule == "nesterov" else memory["v"]
    if rule == "rmsprop":
        memory["s"] = rms_decay * memory.get("s", 0) + (1 - rms_decay) * g**2
        return g / (np.sqrt(memory["s"]) + 1e-8)
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return memory["m"] / (1 - 0.9**t) / (np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8)


def numpy_run(rule, decay=0.0, l2=0.0, **settings):
    def leaf(p, *gradients):
        p, memory, matrix = p.astype(np.float64), {}, p.ndim > 1
        for t, g in enumerate(gradients, 1):
            direction = numpy_direction(rule, g + l2 * matrix * p, memory, t, **settings)
            p = p - RATE * (direction + decay * matrix * p)
        return p

    return jax.tree.map(leaf, START, *GRADIENTS)


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), ours, theirs)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "rmsprop", "adam"])
@pytest.mark.parametrize("settings", [{}, {"decay": 0.3}, {"l2": 0.3}])
def test_rules_follow_their_equations(rule, settings):
    names = {"decay": "weight_decay", "l2": "l2"}
    optimizer = Optimizer(rule=rule, learning_rate=RATE, **{names[key]: value for key, value in settings.items()})
    close(run(optimizer), numpy_run(rule, **settings))


def test_adamw_is_adam_with_decay():
    close(run(Optimizer(rule="adamw", learning_rate=RATE)), numpy_run("adam", decay=0.01))
    close(run(Optimizer(rule="adamw", learning_rate=RATE, weight_decay=0.0)), numpy_run("adam"))
    assert Optimizer(rule="adam").decay == 0


@pytest.mark.parametrize("engine", ["optax", "numpy"])
@pytest.mark.parametrize("rms_decay", [0.0, 0.5, 0.99])
def test_rmsprop_forgets_as_fast_as_it_is_told(rms_decay, engine):
    optimizer = Optimizer(rule="rmsprop", learning_rate=RATE, rms_decay=rms_decay, engine=engine)
    close(run(optimizer), numpy_run("rmsprop", rms_decay=rms_decay))


def test_clipping():
    sgd = Optimizer(rule="sgd", learning_rate=1.0)
    gradient = GRADIENTS[0]
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
    for optimizer, clipped in (
        (dataclasses.replace(sgd, clip_norm=0.5), jax.tree.map(lambda g: g * 0.5 / norm, gradient)),
        (dataclasses.replace(sgd, clip_norm=100.0), gradient),
        (dataclasses.replace(sgd, clip_value=0.2), jax.tree.map(lambda g: np.clip(g, -0.2, 0.2), gradient)),
    ):
        close(run(optimizer, [gradient]), jax.tree.map(lambda p, g: p - g, START, clipped))


def rates(total=100, **settings):
    _, rate = Optimizer(learning_rate=2.0, **settings).build(total)
    return np.array([rate(step) for step in range(total)])


def test_constant_linear_and_cosine():
    np.testing.assert_array_equal(rates(), 2)
    np.testing.assert_allclose(rates(schedule="linear"), 2 * (1 - np.arange(100) / 100), rtol=1e-5)
    cosine = rates(schedule="cosine", warmup=0.1, min_ratio=0.05)
    np.testing.assert_allclose(cosine[:10], 2 * np.arange(1, 11) / 10, rtol=1e-5)
    after = np.arange(90) / 90
    np.testing.assert_allclose(cosine[10:], 2 * (0.05 + 0.95 * (1 + np.cos(np.pi * after)) / 2), rtol=1e-4)
    np.testing.assert_allclose(rates(warmup=0.5)[[0, 49, 50, 99]], [2 / 50, 2, 2, 2], rtol=1e-5)


def test_onecycle_rises_and_falls():
    rate = rates(schedule="onecycle")
    assert rate.argmax() in (29, 30)
    assert rate.max() == pytest.approx(2)
    assert 2 / 25 < rate[0] < 2 / 20
    assert rate[-1] < 0.002
    assert (np.diff(rate[:30]) > 0).all()
    assert (np.diff(rate[30:]) < 0).all()
    assert rates(schedule="onecycle", warmup=0.6).argmax() in (59, 60)


@pytest.mark.parametrize("total", [2, 7, 100])
def test_a_range_test_multiplies_the_rate_by_one_factor_a_step(total):
    """From min_ratio * learning_rate in the first step to learning_rate in the last one."""
    rate = rates(total, schedule="range_test", min_ratio=1e-3)
    assert rate[0] == pytest.approx(2e-3, rel=1e-6)
    assert rate[-1] == 2
    np.testing.assert_allclose(rate, 2e-3 * 1e3 ** (np.arange(total) / (total - 1)), rtol=1e-5)


def test_piecewise():
    rate = rates(schedule="piecewise", milestones=(0.5, 0.75), factor=0.1)
    np.testing.assert_allclose(rate, np.repeat([2, 0.2, 0.02], [50, 25, 25]), rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "onecycle"])
@pytest.mark.parametrize("total", [0, 1, 2])
def test_the_shortest_runs_have_rates_too(schedule, total):
    _, rate = Optimizer(learning_rate=2.0, schedule=schedule, warmup=0.5).build(total)
    assert all(0 < rate(step) <= 2 for step in range(total))


def test_a_range_test_grows_by_one_factor_a_step_up_to_the_full_rate():
    rate = rates(schedule="range_test", min_ratio=1e-5)
    assert rate[0] == pytest.approx(2e-5, rel=1e-5)
    assert rate[-1] == 2
    np.testing.assert_allclose(rate, 2 * 1e-5 ** (1 - np.arange(100) / 99), rtol=1e-5)
    assert rates(total=1, schedule="range_test", min_ratio=0.5) == [pytest.approx(1)]


def test_rms_decay_and_the_other_coefficients_reach_their_rule():
    def leaf(p, *gradients):
        p, square = p.astype(np.float64), 0.0
        for g in gradients:
            square = 0.5 * square + 0.5 * g**2
            p = p - RATE * g / (np.sqrt(square) + 1e-3)
        return p

    ours = Optimizer(rule="rmsprop", learning_rate=RATE, rms_decay=0.5, eps=1e-3)
    close(run(ours), jax.tree.map(leaf, START, *GRADIENTS))


def test_the_rate_follows_the_step_that_is_given_also_after_one_was_left_out():
    optimizer = Optimizer(rule="sgd", learning_rate=2.0, schedule="linear")
    tx, rate = optimizer.build(10)
    state, ones = tx.init(START), jax.tree.map(np.ones_like, START)
    for step in (0, 1, 4, 9):
        updates, state = tx.update(ones, state, START, step=jnp.int32(step))
        jax.tree.map(lambda leaf, step=step: np.testing.assert_allclose(leaf, -2 * (1 - step / 10), rtol=1e-6), updates)
        assert float(rate(step)) == pytest.approx(2 * (1 - step / 10))


def test_the_rate_is_the_one_applied():
    optimizer = Optimizer(rule="sgd", learning_rate=2.0, schedule="linear", warmup=0.4)
    ones = jax.tree.map(np.ones_like, START)
    moved = jax.tree.map(lambda new, old: new - old, run(optimizer, [ones] * STEPS), START)
    expected = -sum(float(optimizer.rate(STEPS)(step)) for step in range(STEPS))
    jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, expected, rtol=1e-5), moved)


def test_frozen_parameters_stay_and_do_not_count():
    gradient = GRADIENTS[0]
    optimizer = Optimizer(rule="sgd", learning_rate=1.0, clip_norm=0.5, freeze=("conv1",))
    after = run(optimizer, [gradient])
    jax.tree.map(np.testing.assert_array_equal, after["conv1"], START["conv1"])
    kernel = gradient["conv10"]["kernel"]
    np.testing.assert_allclose(
        after["conv10"]["kernel"], START["conv10"]["kernel"] - kernel * 0.5 / np.sqrt((kernel**2).sum()), rtol=1e-4
    )
    only_bias = run(Optimizer(weight_decay=0.1, freeze=("conv1/bias",)))
    np.testing.assert_array_equal(only_bias["conv1"]["bias"], START["conv1"]["bias"])
    assert not np.allclose(only_bias["conv1"]["kernel"], START["conv1"]["kernel"])
    assert Optimizer(freeze=("conv1/bias",)).trainable(START) == {
        "conv1": {"kernel": True, "bias": False},
        "conv10": {"kernel": True},
    }


def test_freezing_a_name_that_is_none_is_the_user_s_fault():
    with pytest.raises(UserError, match="no parameter is named 'conv'; there are conv1, conv10"):
        Optimizer(freeze=("conv",)).build(3)[0].init(START)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"l2": 0.1, "weight_decay": 0.1}, "set one of them to 0"),
        ({"rule": "adamw", "l2": 0.1}, "adamw"),
        ({"schedule": "piecewise", "milestones": (0.7, 0.5)}, "must rise"),
        ({"warmup": 1.0}, "warmup"),
        ({"schedule": "range_test"}, "a min_ratio above 0"),
        ({"rule": "adam", "dampened": True}, "dampened is of"),
        ({"rule": "muon", "engine": "numpy"}, 'engine "numpy" has no rule "muon"'),
        ({"rule": "schedule_free_sgd", "schedule": "cosine"}, "needs no schedule"),
        ({"rule": "schedule_free_adamw", "ema": 0.9}, "has its own average"),
        ({"rule": "sgd", "l2": 0.1, "groups": (Group("conv1", weight_decay=0.1),)}, "set one of them to 0"),
    ],
)
def test_settings_that_cannot_go_together(settings, words):
    with pytest.raises(ValueError, match=words):
        Optimizer(**settings)


def test_the_state_is_arrays_and_the_step_compiles_once():
    tx, rate = Optimizer(rule="adam", schedule="cosine", clip_norm=1.0, freeze=("conv1",)).build(10)
    state = tx.init(START)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert rate(jnp.int32(3)).dtype == jnp.float32
