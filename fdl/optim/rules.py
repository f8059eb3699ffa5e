"""Update rules: from a gradient g to the update of parameters p, each built from Optax's parts and applied with our own rate.

The rate is a function of the step that the caller of `update` gives, not of a count of updates: what is logged is what is
applied, also after steps that were skipped. Counts that belong to a rule (Adam's bias correction) stay in its state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from fdl.optim.schedules import LearningRate
from fdl.types import Array

Rule = Literal[
    "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "nadam", "radam", "adagrad", "adafactor", "lion", "lamb",
    "lars", "muon", "fixed_norm_muon", "schedule_free_sgd", "schedule_free_adamw",
]  # fmt: skip

_TRUST_COEFFICIENT = 1e-3  # of LARS: eta, You et al. 2017, section 5
_MUON_RMS = 0.2  # the root mean square of Adam's updates: Liu et al. 2025, section 2.2


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The numbers of a rule; `Coefficients.usual` has those of its paper where it differs from Adam's."""

    momentum: float = 0.9
    dampened: bool = False
    b1: float = 0.9
    b2: float = 0.999
    rms_decay: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.0

    @classmethod
    def usual(cls, rule: Rule) -> Coefficients:
        """Return a rule's defaults."""
        return {
            "adamw": cls(weight_decay=0.01),
            "adagrad": cls(eps=1e-7),
            "adafactor": cls(eps=1e-30),
            "lamb": cls(eps=1e-6),
            "lion": cls(b2=0.99),
            "muon": cls(momentum=0.95),
            "fixed_norm_muon": cls(momentum=0.95),
        }.get(rule, cls())


_DIRECTIONS: dict[str, Callable[[Coefficients], optax.GradientTransformation]] = {
    "sgd": lambda c: optax.identity(),
    "momentum": lambda c: _heavy_ball(c, nesterov=False),
    "nesterov": lambda c: _heavy_ball(c, nesterov=True),
    "rmsprop": lambda c: optax.scale_by_rms(c.rms_decay, c.eps, eps_in_sqrt=False),
    "adam": lambda c: optax.scale_by_adam(c.b1, c.b2, c.eps),
    "adamw": lambda c: optax.scale_by_adam(c.b1, c.b2, c.eps),
    "nadam": lambda c: optax.scale_by_adam(c.b1, c.b2, c.eps, nesterov=True),
    "radam": lambda c: optax.scale_by_radam(c.b1, c.b2, c.eps),
    "adagrad": lambda c: optax.scale_by_rss(initial_accumulator_value=0.1, eps=c.eps),
    "adafactor": lambda c: optax.chain(
        optax.scale_by_factored_rms(epsilon=c.eps), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()
    ),
    "lion": lambda c: optax.scale_by_lion(c.b1, c.b2),
    "muon": lambda c: _muon(c),
}  # fmt: skip


def make_update(rule: Rule, c: Coefficients, rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Make the transform from gradients to what is added to the parameters; its `update` takes `step=`."""
    decay = optax.add_decayed_weights(c.weight_decay, mask=is_decayed) if c.weight_decay else optax.identity()
    if rule == "schedule_free_sgd":
        return _schedule_free(optax.chain(decay, scale_by_rate(rate)), rate, c.b1)
    if rule == "schedule_free_adamw":
        # Adam without its first moment, which the averaging replaces (Defazio et al. 2024, algorithm 1).
        scale = optax.scale_by_rms(c.b2, c.eps, eps_in_sqrt=False, bias_correction=True)
        return _schedule_free(optax.chain(scale, decay, scale_by_rate(rate)), rate, c.b1)
    if rule == "lamb":
        return optax.chain(optax.scale_by_adam(c.b1, c.b2, c.eps), decay, _trust_ratio(1.0), scale_by_rate(rate))
    if rule == "lars":
        return optax.chain(decay, _trust_ratio(_TRUST_COEFFICIENT), scale_by_rate(rate), optax.trace(c.momentum))
    if rule == "fixed_norm_muon":
        kernels = optax.chain(_orthogonalise(c), decay, scale_by_rate(rate), optax.stateless(_to_fixed_norm))
        others = optax.chain(optax.scale_by_adam(c.b1, c.b2, c.eps), scale_by_rate(rate))
        return optax.partition({True: kernels, False: others}, is_decayed)
    return optax.chain(_DIRECTIONS[rule](c), decay, scale_by_rate(rate))


def scale_by_rate(rate: LearningRate) -> optax.GradientTransformationExtraArgs:
    """Multiply by -rate(step), where the caller of `update` gives `step`."""

    def update(updates: object, state: object, params: object = None, *, step: object, **_: object) -> tuple[Any, Any]:
        factor = -rate(step)
        return jax.tree.map(lambda d: factor.astype(d.dtype) * d, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def is_decayed(params: object) -> Any:
    """Mark what weight decay, trust ratios and Muon apply to: leaves of rank 2 and more, not biases and normalisations."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def eval_params(opt_state: object, params: object) -> Any | None:
    """Compute the averaged parameters a schedule-free rule is evaluated with; None for every other rule.

    The rule takes gradients at y = `params` and keeps z; evaluation uses x = (y - (1 - b1) z) / b1, a running average
    of z (Defazio et al. 2024, https://arxiv.org/abs/2405.15682, equations 13 to 15).
    """
    is_state = lambda node: isinstance(node, contrib.ScheduleFreeState)  # noqa: E731
    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
    average = params
    for state in states:
        average = jax.tree.map(
            functools.partial(_extrapolate, state.b1),
            state.z,
            average,
            is_leaf=lambda z: isinstance(z, optax.MaskedNode),
        )
    return average if states else None


def _extrapolate(b1: Any, z: Any, y: Any) -> Any:
    if isinstance(z, optax.MaskedNode):
        return y
    b1 = jnp.expand_dims(b1, tuple(range(jnp.ndim(b1), jnp.ndim(z))))  # of several seeds' states: b1 [S], z [S, ...]
    return (y - (1 - b1) * z) / b1


def _schedule_free(
    base: optax.GradientTransformation, rate: LearningRate, b1: float
) -> optax.GradientTransformationExtraArgs:
    """Wrap `base` in `optax.contrib.schedule_free`, with the rate of the step given."""

    def update(
        grads: object, state: object, params: object = None, *, step: object, **extra: object
    ) -> tuple[Any, Any]:
        return contrib.schedule_free(base, rate(step), b1).update(grads, state, params, step=step, **extra)

    return optax.GradientTransformationExtraArgs(contrib.schedule_free(base, 0.0, b1).init, update)


def _heavy_ball(c: Coefficients, nesterov: bool) -> optax.GradientTransformation:
    trace = optax.trace(c.momentum, nesterov=nesterov)
    return optax.chain(trace, optax.scale(1 - c.momentum)) if c.dampened else trace


def _trust_ratio(coefficient: float) -> optax.GradientTransformation:
    return optax.masked(optax.scale_by_trust_ratio(trust_coefficient=coefficient), is_decayed)


def _orthogonalise(c: Coefficients) -> optax.GradientTransformation:
    """Orthogonalise the momentum of kernels (a convolution's as one matrix, inputs by outputs)."""

    def dimensions(params: object) -> Any:
        return jax.tree.map(
            lambda leaf: contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), params
        )

    return contrib.scale_by_muon(beta=c.momentum, eps=c.eps, weight_dimension_numbers=dimensions)


def _muon(c: Coefficients) -> optax.GradientTransformation:
    """Orthogonalise the kernels' momentum, at Adam's scale; Adam updates the rest."""

    def scale(updates: object, params: object) -> Any:
        width = lambda leaf: max(leaf.size // leaf.shape[-1], leaf.shape[-1])  # noqa: E731
        return jax.tree.map(lambda leaf: _MUON_RMS * width(leaf) ** 0.5 * leaf, updates)

    muon = optax.chain(_orthogonalise(c), optax.stateless(scale))
    return optax.partition({True: muon, False: optax.scale_by_adam(c.b1, c.b2, c.eps)}, is_decayed)


def _to_fixed_norm(updates: object, params: object) -> Any:
    """Change the updates so that every kernel [..., O] has the norm sqrt(O) after them."""

    def change(update: Array, kernel: Array) -> Array:
        moved = kernel + update
        return moved * (kernel.shape[-1] ** 0.5 / jnp.linalg.norm(moved.reshape(-1))) - kernel

    return jax.tree.map(change, updates, params)
