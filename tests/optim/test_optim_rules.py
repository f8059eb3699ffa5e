"""Every rule taken by name against the plain Optax optimizer of the same settings or its equation, over twenty steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from fdl.optim import CustomOptimizer, Optimizer, as_optimizer, eval_params
from fdl.types import UserError

STEPS, RATE = 20, 0.02
RNG = np.random.default_rng(0)
SHAPES = {
    "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
    "dense": {"kernel": (130, 129), "bias": (129,)},
    "head": {"kernel": (6, 3)},
}
is_shape = lambda node: isinstance(node, tuple)  # noqa: E731


def drawn() -> Any:
    return jax.tree.map(lambda shape: RNG.normal(size=shape).astype(np.float32), SHAPES, is_leaf=is_shape)


START, GRADIENTS = drawn(), [drawn() for _ in range(STEPS)]


def run(tx: Any, gradients: list[Any] = GRADIENTS) -> tuple[Any, Any]:
    tx = optax.with_extra_args_support(tx)
    params, state = START, jax.jit(tx.init)(START)

    @jax.jit
    def step(params: Any, state: Any, gradient: Any, at: Any) -> Any:
        updates, state = tx.update(gradient, state, params, step=at)
        return optax.apply_updates(params, updates), state

    for at, gradient in enumerate(gradients):
        params, state = step(params, state, gradient, at)
    return params, state


def close(ours: Any, theirs: Any, tolerance: float = 1e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


def dimensions(params: Any) -> Any:
    last = lambda leaf: contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)  # noqa: E731
    return jax.tree.map(lambda leaf: last(leaf) if leaf.ndim >= 2 else None, params)


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


MUON = contrib.muon(RATE, consistent_rms=0.2, muon_weight_dimension_numbers=dimensions)
PLAIN = {
    "nadam": (optax.nadam(RATE, b1=0.8), {"b1": 0.8}),
    "radam": (optax.radam(RATE, b2=0.9), {"b2": 0.9}),
    "adagrad": (optax.adagrad(RATE), {}),
    "lion": (optax.lion(RATE, weight_decay=0.1, mask=matrices), {"weight_decay": 0.1}),
    "adafactor": (optax.adafactor(RATE), {}),
    "muon": (optax.partition({True: MUON, False: optax.adam(RATE)}, matrices), {}),
    "schedule_free_sgd": (contrib.schedule_free_sgd(RATE), {}),
    "schedule_free_adamw": (contrib.schedule_free_adamw(RATE, b2=0.99), {"b2": 0.99}),
    "nesterov": (optax.sgd(RATE, 0.9, nesterov=True), {}),
    "rmsprop": (optax.rmsprop(RATE, eps_in_sqrt=False), {}),
    "adam": (optax.adam(RATE), {}),
    "adamw": (optax.adamw(RATE, weight_decay=0.01, mask=matrices), {}),
    "sgd": (optax.sgd(RATE), {}),
}  # fmt: skip


@pytest.mark.parametrize("rule", PLAIN)
def test_a_rule_is_optax_s_optimizer_of_the_same_settings(rule: Any) -> None:
    plain, settings = PLAIN[rule]
    close(run(Optimizer(rule=rule, learning_rate=RATE, **settings).build(STEPS)[0])[0], run(plain)[0])


def norm(x: np.ndarray) -> Any:
    return np.sqrt((x * x).sum())


def lamb(p: np.ndarray, *gradients: np.ndarray) -> np.ndarray:
    """You et al. 2020, algorithm 2; a bias goes by Adam."""
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        d = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.1 * (p.ndim > 1) * p
        p = p - RATE * d * (norm(p) / norm(d) if p.ndim > 1 else 1)
    return p


def lars(p: np.ndarray, *gradients: np.ndarray) -> np.ndarray:
    """You et al. 2017, algorithm 1; a bias goes by momentum."""
    p, v = p.astype(np.float64), 0.0
    for g in gradients:
        h = g + 0.1 * (p.ndim > 1) * p
        v = 0.9 * v + RATE * h * (1e-3 * norm(p) / norm(h) if p.ndim > 1 else 1)
        p = p - v
    return p


def fixed_norm_muon(p: np.ndarray, *gradients: np.ndarray) -> np.ndarray:
    """Jordan's airbench: Nesterov momentum, five Newton-Schulz iterations, the norm brought back; a bias goes by Adam."""
    p, m, v = p.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        if p.ndim < 2:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p = p - RATE * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            continue
        m = 0.95 * m + 0.05 * g
        x = ((0.95 * m / (1 - 0.95 ** (t + 1))) + 0.05 * g / (1 - 0.95**t)).reshape(-1, p.shape[-1])
        x = x / norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x - 4.775 * a @ x + 2.0315 * a @ a @ x
        p = p - RATE * (x.reshape(p.shape) + 0.1 * p)
        p = p * np.sqrt(p.shape[-1]) / norm(p)
    return p


def test_muon_of_fixed_norm_follows_its_equation() -> None:
    ours = Optimizer(rule="fixed_norm_muon", learning_rate=RATE, weight_decay=0.1)
    expected = jax.tree.map(lambda p, *gradients: fixed_norm_muon(p, *map(np.float64, gradients)), START, *GRADIENTS)
    found = run(ours.build(STEPS)[0])[0]
    close(found, expected, 2e-3)  # the iterations blow rounding up
    assert norm(np.asarray(found["conv"]["kernel"])) == pytest.approx(2)


@pytest.mark.parametrize("equation", [lamb, lars])
def test_layerwise_rules_follow_their_papers_and_leave_biases_alone(equation: Any) -> None:
    ours = Optimizer(rule=equation.__name__, learning_rate=RATE, weight_decay=0.1)
    expected = jax.tree.map(lambda p, *gradients: equation(p, *map(np.float64, gradients)), START, *GRADIENTS)
    close(run(ours.build(STEPS)[0])[0], expected, 2e-5)  # float32 against float64


def test_schedule_free_is_evaluated_at_the_average_of_its_iterates() -> None:
    """Defazio et al. 2024, equations 13 to 15, with a warm-up: the average is weighted by the rate squared."""
    optimizer = Optimizer(rule="schedule_free_sgd", learning_rate=RATE, warmup=0.5, b1=0.8)
    tx, rate = optimizer.build(STEPS)
    params, state = run(tx)

    def average(start: np.ndarray, *gradients: np.ndarray) -> np.ndarray:
        x = z = start.astype(np.float64)
        total = 0.0
        for at, g in enumerate(gradients):
            z = z - float(rate(at)) * g
            total += float(rate(at)) ** 2
            x = x + float(rate(at)) ** 2 / total * (z - x)
        return x

    expected = jax.tree.map(average, START, *GRADIENTS)
    close(eval_params(state, params), expected, 1e-5)
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), (state, params))
    close(jax.tree.map(lambda leaf: leaf[1], eval_params(*seeds)), expected, 1e-5)
    assert eval_params(Optimizer().build(3)[0].init(START), START) is None


def test_schedule_free_is_found_in_the_state_of_any_transform() -> None:
    plain = contrib.schedule_free_sgd(RATE)
    params, state = run(plain)
    expected = contrib.schedule_free_eval_params(state, params)
    close(eval_params({"outer": (state,)}, params), expected, 0)
    params, state = run(Optimizer(rule="schedule_free_sgd", learning_rate=RATE, freeze=("conv",)).build(STEPS)[0])
    got = eval_params(state, params)
    close(got["dense"], expected["dense"])
    jax.tree.map(np.testing.assert_array_equal, got["conv"], START["conv"])


@pytest.mark.parametrize("rule", ["momentum", "adafactor", "muon", "lamb", "schedule_free_adamw"])
def test_accumulated_gradients_are_a_large_batch(rule: Any) -> None:
    settings: dict[str, Any] = {"rule": rule, "learning_rate": RATE, "clip_norm": 1.0}
    if rule == "momentum":
        settings |= {"schedule": "cosine", "warmup": 0.3}
    pairs = [jax.tree.map(lambda a, b: (a + b) / 2, *GRADIENTS[at : at + 2]) for at in range(0, STEPS, 2)]
    large = run(Optimizer(**settings).build(STEPS // 2)[0], pairs)[0]
    tx, rate = Optimizer(**settings, accumulate=2).build(STEPS)
    close(run(tx)[0], large)
    half = Optimizer(**settings).rate(STEPS // 2)
    assert [float(rate(step)) for step in range(STEPS)] == [float(half(step // 2)) for step in range(STEPS)]


def test_steps_between_two_updates_change_nothing_and_a_skipped_one_is_replaced() -> None:
    tx, _ = Optimizer(rule="sgd", learning_rate=1.0, accumulate=3).build(9)
    state, updates = tx.init(START), None
    for step, gradient in ((0, GRADIENTS[0]), (2, GRADIENTS[1])):  # step 1 was skipped: its state was thrown away
        updates, state = tx.update(gradient, state, START, step=step)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    updates, state = tx.update(GRADIENTS[2], state, START, step=3)
    close(updates, jax.tree.map(lambda *g: -sum(g) / 3, *GRADIENTS[:3]))


def test_unequal_batches_accumulate_to_the_gradient_of_all_their_rows() -> None:
    """A mean of means would give each token of a short batch more than one of a long batch."""
    tx, _ = Optimizer(rule="sgd", learning_rate=1.0, accumulate=3).build(9)
    state, updates, weights = tx.init(START), None, (30.0, 0.0, 10.0)
    for step, (gradient, weight) in enumerate(zip(GRADIENTS, weights, strict=False)):
        updates, state = tx.update(gradient, state, START, step=step, loss_weight=jnp.float32(weight))
    close(updates, jax.tree.map(lambda a, _, c: -(0.75 * a + 0.25 * c), *GRADIENTS[:3]))


def test_any_optax_transform_is_an_optimizer() -> None:
    plain = optax.chain(optax.clip(0.5), optax.sgd(0.1))
    tx, rate = as_optimizer(plain).build(STEPS)
    assert rate is None
    close(run(tx)[0], run(plain)[0], 0)
    decaying = lambda total: optax.sgd(optax.linear_schedule(0.1, 0.0, total))  # noqa: E731
    tx, _ = as_optimizer(decaying).build(STEPS)
    close(run(tx)[0], run(decaying(STEPS))[0], 0)
    recipe = Optimizer(ema=0.5)
    assert as_optimizer(recipe) is recipe
    held = CustomOptimizer(optax.adam(0.1), freeze=("dense",))
    after, state = run(held.build(STEPS)[0])
    jax.tree.map(np.testing.assert_array_equal, after["dense"], START["dense"])
    assert not np.allclose(after["head"]["kernel"], START["head"]["kernel"])
    assert (130, 129) not in [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
    assert held.trainable(START)["dense"] == {"kernel": False, "bias": False}


def test_a_transform_that_takes_extra_arguments_is_given_the_step() -> None:
    def update(grads: Any, state: Any, params: Any = None, *, step: Any, **_: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, step), grads), state

    tx, _ = as_optimizer(optax.GradientTransformationExtraArgs(lambda params: (), update)).build(3)
    updates, _ = tx.update(START, tx.init(START), START, step=7)
    assert np.all(updates["head"]["kernel"] == 7)


@pytest.mark.parametrize("value", ["adam", 3, None, Optimizer])
def test_what_is_no_optimizer_is_said_in_one_line(value: Any) -> None:
    with pytest.raises(
        UserError, match=r"^optimizer: expected an fdl.optim.Optimizer, an Optax transform such as [^\n]*$"
    ):
        as_optimizer(value)
    with pytest.raises(UserError, match="the function returned str"):
        as_optimizer(lambda total: "adam").build(3)


@pytest.mark.parametrize("rule", [*PLAIN, "lamb", "lars", "momentum"])
def test_the_state_of_every_rule_keeps_its_types(rule: Any) -> None:
    """Or the second step would be compiled anew, and a restored state would not fit."""
    tx, rate = Optimizer(rule=rule, accumulate=2, clip_norm=1.0).build(10)
    before = jax.eval_shape(tx.init, START)
    _, after = jax.eval_shape(lambda state: tx.update(START, state, START, step=jnp.int32(0)), before)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )
    assert rate(jnp.int32(3)).dtype == jnp.float32
