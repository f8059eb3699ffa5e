"""Groups of parameters: their own rates, decay and rules; frozen ones keep their bits, and their statistics too."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fdl.experiment.overrides import override, settings, show
from fdl.models import layers
from fdl.optim import Group, Optimizer, hold_frozen_statistics, stop_frozen
from fdl.types import UserError

STEPS = 20
RNG = np.random.default_rng(0)


def drawn() -> Any:
    part = lambda: {"kernel": RNG.normal(size=(3, 2)).astype(np.float32), "bias": RNG.normal(size=2).astype(np.float32)}  # noqa: E731
    return {"encoder": {"conv1": part(), "conv2": part()}, "head": part()}


START, GRADIENTS = drawn(), [drawn() for _ in range(STEPS)]


def run(optimizer: Optimizer) -> tuple[Any, Any]:
    tx, _ = optimizer.build(STEPS)
    params, state = START, tx.init(START)

    @jax.jit
    def step(params: Any, state: Any, gradient: Any, at: Any) -> Any:
        updates, state = tx.update(gradient, state, params, step=at)
        return optax.apply_updates(params, updates), state

    for at, gradient in enumerate(GRADIENTS):
        params, state = step(params, state, gradient, at)
    return params, state


def close(ours: Any, theirs: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, theirs)


BASE = Optimizer(rule="adam", learning_rate=0.05, schedule="cosine", warmup=0.2, weight_decay=0.1)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_groups_are_separate_optimizers(accumulate: int) -> None:
    base = dataclasses.replace(BASE, accumulate=accumulate)
    groups = (
        Group("encoder/conv1", scale=0.1),
        Group("*/bias", weight_decay=0.0, rule="sgd"),
        Group("head", rule="lion"),
    )
    ours, _ = run(dataclasses.replace(base, groups=groups))
    close(ours["encoder"]["conv1"], run(dataclasses.replace(base, learning_rate=0.005))[0]["encoder"]["conv1"])
    close(ours["encoder"]["conv2"]["kernel"], run(base)[0]["encoder"]["conv2"]["kernel"])
    sgd, _ = run(dataclasses.replace(base, rule="sgd", weight_decay=0.0))
    close(ours["encoder"]["conv2"]["bias"], sgd["encoder"]["conv2"]["bias"])
    close(ours["head"]["bias"], sgd["head"]["bias"])
    close(ours["head"]["kernel"], run(dataclasses.replace(base, rule="lion"))[0]["head"]["kernel"])


def test_what_belongs_to_one_rule_does_not_reach_a_group_with_another() -> None:
    head = (Group("head", rule="adam"),)
    ours, _ = run(Optimizer(rule="momentum", dampened=True, learning_rate=0.05, groups=head))
    close(ours["encoder"], run(Optimizer(rule="momentum", dampened=True, learning_rate=0.05))[0]["encoder"])
    close(ours["head"], run(Optimizer(rule="adam", learning_rate=0.05))[0]["head"])


def test_the_first_group_that_matches_decides_and_all_of_them_may_cover_everything() -> None:
    both = (Group("encoder*", rule="sgd"), Group("*", rule="schedule_free_sgd"))
    ours, _ = run(Optimizer(rule="adam", learning_rate=0.05, groups=both))
    close(ours["encoder"], run(Optimizer(rule="sgd", learning_rate=0.05))[0]["encoder"])
    close(ours["head"], run(Optimizer(rule="schedule_free_sgd", learning_rate=0.05))[0]["head"])


@pytest.mark.parametrize("rule", ["adam", "muon", "schedule_free_adamw"])
def test_frozen_parameters_keep_their_bits_and_have_no_state(rule: Any) -> None:
    frozen = Optimizer(rule=rule, clip_norm=1.0, groups=(Group("encoder", frozen=True),))
    after, state = run(frozen)
    jax.tree.map(np.testing.assert_array_equal, after["encoder"], START["encoder"])
    assert not np.allclose(after["head"]["kernel"], START["head"]["kernel"])
    tx, _ = Optimizer(rule=rule, clip_norm=1.0).build(STEPS)
    alone = jax.tree.leaves(tx.init(START["head"]))
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [leaf.shape for leaf in alone]
    assert frozen.trainable(START)["encoder"]["conv1"] == {"kernel": False, "bias": False}
    assert frozen.trainable(START)["head"] == {"kernel": True, "bias": True}
    short, _ = run(Optimizer(rule=rule, clip_norm=1.0, freeze=("encoder",)))
    jax.tree.map(np.testing.assert_array_equal, short, after)


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (
            Optimizer(groups=(Group("conv1"),)),
            "optimizer.groups: no parameter is named 'conv1'; there are encoder, head",
        ),
        (Optimizer(freeze=("head", "enc")), "optimizer.freeze: no parameter is named 'enc'; there are encoder, head"),
    ],
)
def test_a_pattern_that_matches_nothing_is_the_user_s_fault(optimizer: Optimizer, says: str) -> None:
    with pytest.raises(UserError, match=says):
        optimizer.build(3)[0].init(START)
    with pytest.raises(UserError, match=says):
        optimizer.trainable(START)


@pytest.mark.parametrize(
    "group", [Group("encoder", scale=0.1), Group("*/bias", weight_decay=0.0, rule="sgd"), Group("a/b", frozen=True)]
)
def test_a_group_comes_back_from_its_text(group: Group) -> None:
    assert Group.parse(str(group)) == group


@pytest.mark.parametrize(
    "text", ["", "a:scale=0", "a:scale=x", "a:scale=inf", "a:b", "a:rule=adamant", "a:frozen:scale=2"]
)
def test_what_is_no_group_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"group|expected|float"):
        Group.parse(text)


def test_groups_are_set_and_shown_as_text() -> None:
    optimizer = override(Optimizer(), "groups=encoder:scale=0.1, */bias:weight_decay=0.0", "freeze=head")
    assert optimizer.groups == (Group("encoder", scale=0.1), Group("*/bias", weight_decay=0.0))
    assert {name: show(value) for name, value in settings(optimizer)}[
        "groups"
    ] == "encoder:scale=0.1,*/bias:weight_decay=0.0"
    assert override(optimizer, "groups=()").groups == ()
    with pytest.raises(UserError, match=r"--set groups=encoder:rate=1: expected scale=X"):
        override(Optimizer(), "groups=encoder:rate=1")


class Encoder(nn.Module):
    own: bool

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Dense(4, name="dense")(x)
        if self.own:
            return layers.BatchNorm(momentum=0.5, name="norm")(x, train)
        return nn.BatchNorm(momentum=0.5, name="norm")(x, use_running_average=not train)


class Net(nn.Module):
    own: bool

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = Encoder(self.own, name="encoder")(x, train)
        x = nn.Dense(3, name="head")(nn.relu(x))
        return nn.BatchNorm(momentum=0.5, use_scale=False, use_bias=False, name="last")(
            x, use_running_average=not train
        )


@pytest.mark.parametrize("own", [True, False])
def test_a_frozen_part_normalises_by_its_running_statistics_and_leaves_them(own: bool) -> None:
    model, x = Net(own), jnp.asarray(RNG.normal(size=(16, 5), loc=3), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    trained = Optimizer(freeze=("encoder",)).trainable(params)

    @jax.jit
    def forward(params: Any) -> Any:
        with hold_frozen_statistics(trained, stats):
            return model.apply({"params": params, **stats}, x, train=True, mutable=["batch_stats"])

    outputs, after = forward(params)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"]["encoder"], stats["batch_stats"]["encoder"])
    assert not np.allclose(after["batch_stats"]["last"]["mean"], stats["batch_stats"]["last"]["mean"])
    x, params = jax.device_get((x, params))
    dense = params["encoder"]["dense"]
    hidden = np.maximum((x @ dense["kernel"] + dense["bias"]) / np.sqrt(1 + 1e-5), 0)  # mean 0 and variance 1 at first
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(outputs, (logits - logits.mean(0)) / np.sqrt(logits.var(0) + 1e-5), atol=1e-4)
    _, moved = model.apply({"params": params, **stats}, x, train=True, mutable=["batch_stats"])
    assert not np.allclose(moved["batch_stats"]["encoder"]["norm"]["mean"], 0)
    only_scale = Optimizer(freeze=("encoder/norm/scale",)).trainable(params)
    with hold_frozen_statistics(only_scale, stats):
        _, still = model.apply({"params": params, **stats}, x, train=True, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, still, moved)


def test_a_frozen_part_s_gradient_is_not_computed() -> None:
    model, x = Net(True), jnp.ones((16, 5), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}

    def products(optimizer: Optimizer) -> int:
        trained = optimizer.trainable(params)

        def loss(params: Any) -> Any:
            return (model.apply({"params": stop_frozen(params, trained), **stats}, x, train=False) ** 2).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        frozen = jax.tree.map(lambda leaf, on: on or not np.any(leaf), jax.grad(loss)(params), trained)
        assert all(jax.tree.leaves(frozen))
        return compiled.cost_analysis()["flops"]

    # Forward: encoder 16x5x4 and head 16x4x3; backward: the head's kernel and input, the encoder's kernel.
    saved = products(Optimizer()) - products(Optimizer(freeze=("encoder",)))
    assert saved > 2 * 16 * 5 * 4 + 2 * 16 * 4 * 3
