"""Optimizers: one frozen value of settings that `build`s an Optax transform and its learning-rate function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fdl.numpy_call import numpy_call
from fdl.scratch import optimizers
from fdl.types import Array, Fraction, NonNegative, Positive, Probability, UserError, named_leaves

LearningRate = Callable[[Any], Array]
"""The index of a step, from 0 -> the rate of its update, a float32 scalar."""

_ADAMW_DECAY = 0.01
_ONECYCLE_RISE = 0.3
_ONECYCLE_START = 1 / 25


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How the parameters p follow the gradient g, in this order:

    1. each entry of g is clipped to +-`clip_value`, then g as a whole to the norm `clip_norm` (frozen parameters left
       out);
    2. `l2` * p is added to g (the gradient of l2 / 2 * |p|^2);
    3. the rule makes a direction d of g;
    4. `weight_decay` * p is added to d (decoupled: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101);
    5. p <- p - rate(step) * d.

    `l2` and `weight_decay` leave out leaves of rank 0 and 1: biases, and the scales of normalisations.

    Attributes:
        rule: "sgd": d = g. "momentum": v <- momentum * v + g, d = v (Polyak 1964). "nesterov": the same v,
            d = g + momentum * v (Sutskever et al. 2013). "rmsprop": s <- rms_decay * s + (1 - rms_decay) g^2,
            d = g / (sqrt(s) + eps) (Tieleman and Hinton 2012). "adam": m and v are averages of g and g^2 by b1 and b2,
            divided by 1 - b^t, d = m / (sqrt(v) + eps) (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980). "adamw":
            adam whose `weight_decay` is 0.01 unless given.
        learning_rate: the largest rate of the run.
        schedule: the rate after the warm-up: "constant"; "linear" and "cosine" (Loshchilov and Hutter 2017,
            https://arxiv.org/abs/1608.03983), which fall to `floor` over the rest of the run; "onecycle", which rises
            by a cosine from 1/25 over `warmup` (0.3 unless given) and falls by one to `floor` (Smith and Topin 2018,
            https://arxiv.org/abs/1708.07120); "piecewise", which is multiplied by `factor` at each of `milestones`;
            "rise", which grows by one factor a step from `floor` to the full rate of the last step (the range test of
            Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3).
        warmup: the share of the run over which the rate rises in a straight line.
        floor: the rate at the end (of "rise": at the beginning), as a share of `learning_rate` (not for constant and
            piecewise).
        milestones: when a piecewise rate falls, as rising shares of the run (of no meaning otherwise).
        factor: what it falls by.
        momentum: of "momentum" and "nesterov".
        average: "momentum" and "nesterov" multiply g by 1 - momentum, so that v is an average of gradients, not a sum.
        b1, b2: of Adam.
        rms_decay: of RMSProp.
        eps: of Adam and RMSProp.
        weight_decay: decoupled, for every rule; None is 0.01 for "adamw" and 0 for the others.
        l2: through the gradient.
        clip_norm: the largest norm of the whole gradient, or None.
        clip_value: the largest magnitude of an entry of the gradient, or None.
        ema: decay of the moving average of the parameters that evaluation uses (the step keeps it); 0 for none.
        freeze: names of parameters ("conv1", "conv1/kernel") that are not trained; a name stands for all under it.
        engine: what computes steps 3 to 5: Optax, compiled, or the optimizers written by hand in `fdl.scratch`, in NumPy.

    Raises:
        ValueError: settings that cannot go together.
    """

    rule: Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine", "onecycle", "piecewise", "rise"] = "constant"
    warmup: Fraction = 0.0
    floor: Fraction = 0.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    factor: Positive = 0.1
    momentum: Probability = 0.9
    average: bool = False
    b1: Probability = 0.9
    b2: Probability = 0.999
    rms_decay: Probability = 0.9
    eps: Positive = 1e-8
    weight_decay: NonNegative | None = None
    l2: NonNegative = 0.0
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    ema: Probability = 0.0
    freeze: tuple[str, ...] = ()
    engine: Literal["optax", "numpy"] = "optax"

    def __post_init__(self) -> None:
        if self.l2 and self.weight_decay:
            raise ValueError("l2 and weight_decay both shrink the parameters: set one of them to 0 before the other")
        if self.rule == "adamw" and self.l2:
            raise ValueError(
                'rule "adamw" decays the weights apart from the gradient: use weight_decay, or rule "adam" with l2'
            )
        if self.average and self.rule not in ("momentum", "nesterov"):
            raise ValueError(f'average is of the rules "momentum" and "nesterov": leave it out with rule "{self.rule}"')
        if self.engine == "numpy" and self.decay and self.rule != "adamw":
            raise ValueError(f'with engine "numpy" only rule "adamw" has weight_decay: use l2 with rule "{self.rule}"')
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, not {self.milestones}")
        if self.schedule == "rise" and (self.warmup or not self.floor):
            raise ValueError('schedule "rise" begins at floor * learning_rate: give a floor above 0, and no warmup')
        if self.warmup >= 1:
            raise ValueError("a warmup of the whole run leaves nothing to train at the full rate: give less than 1")

    @property
    def decay(self) -> float:
        """The decoupled weight decay in force."""
        if self.weight_decay is None:
            return _ADAMW_DECAY if self.rule == "adamw" else 0.0
        return self.weight_decay

    def build(self, total_steps: int) -> tuple[optax.GradientTransformation, LearningRate]:
        """The transform for a run of `total_steps`, and the learning rate of each of its steps.

        The transform's `init` raises UserError where a name in `freeze` is no parameter's.
        """
        rate = self.rate(total_steps)
        chain: list[optax.GradientTransformation] = []
        if self.clip_value is not None:
            chain.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            chain.append(optax.clip_by_global_norm(self.clip_norm))
        if self.l2:
            chain.append(optax.add_decayed_weights(self.l2, mask=_decayed))
        if self.engine == "numpy":
            chain.append(self._by_hand(rate))
        else:
            chain.append(self._direction())
            if self.decay:
                chain.append(optax.add_decayed_weights(self.decay, mask=_decayed))
            chain.append(optax.scale_by_learning_rate(rate))
        transform = optax.chain(*chain)
        if self.freeze:
            transform = optax.multi_transform({True: transform, False: optax.set_to_zero()}, self.trainable)
        return transform, rate

    def rate(self, total_steps: int) -> LearningRate:
        """The learning rate of step 0 ... total_steps - 1."""
        total = max(1, total_steps)
        share = self.warmup or (_ONECYCLE_RISE if self.schedule == "onecycle" else 0.0)
        rise = round(share * total)
        falls = [round(milestone * total) for milestone in self.milestones if self.schedule == "piecewise"]

        def rate(step: Any) -> Array:
            step = jnp.asarray(step, jnp.float32)
            # The first update is not wasted on a rate of zero, and the last step of the rise has the full rate.
            risen = jnp.clip((step + 1) / max(1, rise), 0, 1)
            fallen = jnp.clip((step - rise) / max(1, total - rise), 0, 1)
            if self.schedule == "onecycle":
                risen = _ONECYCLE_START + (1 - _ONECYCLE_START) * _cosine(1 - risen)
            if self.schedule == "linear":
                share = self.floor + (1 - self.floor) * (1 - fallen)
            elif self.schedule == "rise":
                share = self.floor ** (1 - jnp.clip(step / max(1, total - 1), 0, 1))
            elif self.schedule in ("cosine", "onecycle"):
                share = self.floor + (1 - self.floor) * _cosine(fallen)
            else:
                share = jnp.float32(1)
                for fall in falls:
                    share = share * jnp.where(step >= fall, self.factor, 1.0)
            return self.learning_rate * jnp.where(step < rise, risen, share)

        return rate

    def trainable(self, params: Any) -> Any:
        """A tree like `params` of True where a parameter is trained and False where `freeze` names it.

        Raises:
            UserError: a name in `freeze` is no parameter's.
        """
        leaves, tree = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
        paths = [_name(path) for path, _ in leaves]
        for name in self.freeze:
            if not any(_under(path, name) for path in paths):
                tops = ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))
                raise UserError(f"optimizer.freeze: no parameter is named {name!r}; there are {tops}")
        return jax.tree.unflatten(tree, [not any(_under(path, name) for name in self.freeze) for path in paths])

    def _direction(self) -> optax.GradientTransformation:
        if self.rule == "sgd":
            return optax.identity()
        if self.rule in ("momentum", "nesterov"):
            trace = optax.trace(self.momentum, nesterov=self.rule == "nesterov")
            return optax.chain(trace, optax.scale(1 - self.momentum)) if self.average else trace
        if self.rule == "rmsprop":
            return optax.scale_by_rms(self.rms_decay, self.eps, eps_in_sqrt=False)
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def _by_hand(self, rate: LearningRate) -> optax.GradientTransformation:
        """Steps 3 to 5 as one NumPy call of `fdl.scratch.optimizers`."""

        def rule(rate: float, decayed: bool) -> optimizers.Optimizer:
            if self.rule == "sgd":
                return optimizers.gradient_descent(rate)
            if self.rule in ("momentum", "nesterov"):
                scale = 1.0 if self.average else 1 / (1 - self.momentum)  # the one by hand is an average
                return optimizers.momentum(rate * scale, self.momentum, self.rule == "nesterov")
            if self.rule == "rmsprop":
                return optimizers.rmsprop(rate, self.rms_decay, self.eps)
            return optimizers.adamw(rate, self.b1, self.b2, self.eps, self.decay if decayed else 0.0)

        def init(params: Any) -> Any:
            names = rule(0.0, False).init({})  # "step" and the averages that the rule keeps, all zero
            return {
                group: {name: jax.tree.map(jnp.zeros_like, part) for name in names} | {"step": jnp.zeros((), jnp.int32)}
                for group, part in _groups(params).items()
            }

        def step(params: Any, grads: Any, states: Any, rate: np.ndarray) -> tuple[Any, Any]:
            new, after = {}, {}
            for group, state in states.items():
                at = state | {"step": int(state["step"])}  # Python's numbers leave float32 as it is
                new[group], at = rule(float(rate), group == "decayed").update(params[group], grads[group], at)
                after[group] = at | {"step": np.int32(at["step"])}
            return new, after

        def update(grads: Any, states: Any, params: Any = None) -> tuple[Any, Any]:
            parts, now = _groups(params), rate(states["decayed"]["step"])
            like = jax.tree.map(jax.ShapeDtypeStruct.like, (parts, states))
            new, states = numpy_call(step, like, parts, _groups(grads), states, now)
            new = new["decayed"] | new["other"]  # what the step adds gives this again, but for a rounding near zero
            return jax.tree_util.tree_map_with_path(lambda path, w: new[_name(path)] - w, params), states

        return optax.GradientTransformation(init, update)


def _cosine(progress: Array) -> Array:
    """From 1 at 0 down to 0 at 1, level at both ends."""
    return (1 + jnp.cos(jnp.pi * progress)) / 2


def _decayed(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def _groups(params: Any) -> dict[str, dict[str, Any]]:
    """The leaves by name, apart: those that weight decay takes, and the others."""
    groups: dict[str, dict[str, Any]] = {"decayed": {}, "other": {}}
    for name, leaf in named_leaves(params).items():
        groups["decayed" if jnp.ndim(leaf) >= 2 else "other"][name] = leaf
    return groups


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(path: str, name: str) -> bool:
    return path == name or path.startswith(name.rstrip("/") + "/")
