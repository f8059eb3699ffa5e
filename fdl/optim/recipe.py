"""The optimizer as one frozen value of settings."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from fdl.optim import by_hand, rules
from fdl.optim.accumulation import accumulate_gradients
from fdl.optim.groups import FROZEN, REST, Group, label_params, mask_frozen
from fdl.optim.rules import Coefficients, Rule
from fdl.optim.schedules import LearningRate, ScheduleName, make_multiplier
from fdl.types import Array, Count, Fraction, NonNegative, Positive, Probability


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How the parameters p are updated by the gradient g, in this order:

    1. `accumulate` gradients are averaged;
    2. each entry of g is clipped to +-`clip_value`, then g as a whole to the norm `clip_norm` (frozen parameters left
       out);
    3. `l2` * p is added to g (the gradient of l2 / 2 * |p|^2);
    4. the rule makes a direction d of g;
    5. `weight_decay` * p is added to d (decoupled: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101);
    6. p <- p - rate(step) * d.

    `l2`, `weight_decay` and trust ratios leave out leaves of rank 0 and 1: biases, and the scales of normalisations.

    Attributes:
        rule: - "sgd": d = g. "momentum": v <- momentum * v + g, d = v (Polyak 1964). "nesterov": the same v,
              d = g + momentum * v (Sutskever et al. 2013).
            - "rmsprop": s <- rms_decay * s + (1 - rms_decay) g^2, d = g / (sqrt(s) + eps) (Tieleman and Hinton 2012).
              "adagrad": s <- s + g^2 from 0.1, d = g / sqrt(s + eps) (Duchi et al. 2011).
            - "adam": m and v are averages of g and g^2 by b1 and b2, divided by 1 - b^t, d = m / (sqrt(v) + eps) (Kingma
              and Ba 2015, https://arxiv.org/abs/1412.6980). "adamw": the same, with a `weight_decay` of 0.01.
              "nadam": with Nesterov's m (Dozat 2016). "radam": plain m until v is reliable (Liu et al. 2020,
              https://arxiv.org/abs/1908.03265).
            - "lion": d = sign(b1 m + (1 - b1) g), m <- b2 m + (1 - b2) g (Chen et al. 2023,
              https://arxiv.org/abs/2302.06675); its rate is a tenth of Adam's.
            - "adafactor": g / sqrt(v) with v of matrices from 128 x 128 on as row times column averages, clipped to a
              root mean square of 1, times that of p (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235; its
              relative step is a schedule here: `learning_rate` is the share of p that a step moves).
            - "lamb": Adam's d + weight_decay * p, scaled to the norm of p (You et al. 2020,
              https://arxiv.org/abs/1904.00962). "lars": v <- momentum * v + rate * 0.001 |p| / |h| h with
              h = g + weight_decay * p, p <- p - v (You et al. 2017, https://arxiv.org/abs/1708.03888).
            - "muon": Nesterov momentum of each kernel, orthogonalised by five Newton-Schulz iterations and scaled to
              Adam's root mean square of 0.2, so that one rate serves all; leaves of rank 0 and 1 by Adam (Jordan 2024;
              Liu et al. 2025, https://arxiv.org/abs/2502.16982). Embeddings and the head are usually Adam's as well:
              `groups=(Group("head", rule="adam"),)`. "fixed_norm_muon": without that scale, and each kernel of O outputs
              is brought back to the norm sqrt(O) after its update, so that the rate is the share of a kernel that a step
              changes: for kernels that a normalisation follows, to which their norm is the same (Jordan's airbench).
            - "schedule_free_sgd", "schedule_free_adamw": gradients at y = b1 x + (1 - b1) z, steps of z, evaluation at
              x, the average of z weighted by the rate squared (Defazio et al. 2024, https://arxiv.org/abs/2405.15682).
        learning_rate: the largest rate of the run.
        schedule: the rate after the warm-up: "constant"; "linear" and "cosine" (Loshchilov and Hutter 2017,
            https://arxiv.org/abs/1608.03983), which fall to `min_ratio` over the rest of the run; "onecycle", which rises
            by a cosine from 1/25 over `warmup` (0.3 unless given) and falls by one to `min_ratio` (Smith and Topin 2018,
            https://arxiv.org/abs/1708.07120); "piecewise", which is multiplied by `factor` at each of `milestones`;
            "range_test", which grows by one factor a step from `min_ratio` to the full rate of the last step (Smith
            2017, https://arxiv.org/abs/1506.01186, section 3.3).
        warmup: the share of the run over which the rate rises in a straight line.
        min_ratio: the rate at the end (of "range_test": at the beginning), as a share of `learning_rate` (not for
            constant and piecewise).
        milestones: when a piecewise rate falls, as rising shares of the run (unused otherwise).
        factor: what it falls by.
        momentum: of "momentum", "nesterov" and "lars" (None: 0.9), "muon" and "fixed_norm_muon" (None: 0.95).
        dampened: "momentum" and "nesterov" multiply g by 1 - momentum, so that v is an average of gradients, not a sum.
        b1, b2: of Adam, its relatives, "lion" and the schedule-free rules; None: 0.9 and 0.999, b2 of "lion" 0.99.
        rms_decay: of RMSProp.
        eps: keeps a quotient finite; None: 1e-8, "lamb" 1e-6, "adagrad" 1e-7, "adafactor" 1e-30.
        weight_decay: decoupled, for every rule; None is 0.01 for "adamw" and 0 for the others.
        l2: through the gradient.
        clip_norm: the largest norm of the whole gradient, or None.
        clip_value: the largest magnitude of an entry of the gradient, or None.
        accumulate: this many steps make one update, by the mean of their gradients: a batch as many times as large in the
            memory of one. The schedule then counts updates: step t has the rate of update t // accumulate.
        ema: decay of the moving average of the parameters that evaluation uses (the step keeps it); 0 for none.
        groups: parameters with their own rate, decay or rule, or frozen; the first group that matches a parameter
            decides. As text: `--set optimizer.groups=encoder:scale=0.1,*/bias:weight_decay=0`.
        freeze: names of parameters ("conv1", "conv1/kernel", "stage*") that are not trained, as by a frozen `Group`.
        engine: what computes steps 4 to 6: Optax, compiled, or the optimizers written by hand in `fdl.scratch`, in NumPy.

    Raises:
        ValueError: settings that cannot go together.
    """

    rule: Rule = "adam"
    learning_rate: Positive = 1e-3
    schedule: ScheduleName = "constant"
    warmup: Fraction = 0.0
    min_ratio: Fraction = 0.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    factor: Positive = 0.1
    momentum: Probability | None = None
    dampened: bool = False
    b1: Probability | None = None
    b2: Probability | None = None
    rms_decay: Probability = 0.9
    eps: Positive | None = None
    weight_decay: NonNegative | None = None
    l2: NonNegative = 0.0
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    accumulate: Count = 1
    ema: Probability = 0.0
    groups: tuple[Group, ...] = ()
    freeze: tuple[str, ...] = ()
    engine: Literal["optax", "numpy"] = "optax"

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, not {self.milestones}")
        if self.schedule == "range_test" and (self.warmup or not self.min_ratio):
            raise ValueError(
                'schedule "range_test" begins at min_ratio * learning_rate: give a min_ratio above 0, and no warmup'
            )
        if self.warmup >= 1:
            raise ValueError("a warmup of the whole run leaves nothing to train at the full rate: give less than 1")
        self._check_rule()
        for group in self.groups:
            self._of_group(group)  # which checks itself

    def _check_rule(self) -> None:
        if self.l2 and self.decay:
            if self.weight_decay is None:
                raise ValueError(
                    f'rule "{self.rule}" decays the weights apart from the gradient: use weight_decay, or rule "adam" with l2'
                )
            raise ValueError("l2 and weight_decay both shrink the parameters: set one of them to 0 before the other")
        if self.dampened and self.rule not in ("momentum", "nesterov"):
            raise ValueError(
                f'dampened is of the rules "momentum" and "nesterov": leave it out with rule "{self.rule}"'
            )
        if self.engine == "numpy" and self.rule not in by_hand.RULES:
            raise ValueError(f'engine "numpy" has no rule "{self.rule}", only {", ".join(by_hand.RULES)}')
        if self.engine == "numpy" and self.decay and self.rule != "adamw":
            raise ValueError(f'with engine "numpy" only rule "adamw" has weight_decay: use l2 with rule "{self.rule}"')
        if self.rule.startswith("schedule_free") and (self.schedule != "constant" or self.ema or self.b1 == 0):
            raise ValueError(
                f'rule "{self.rule}" has its own average and needs no schedule: use schedule "constant" (and a warmup), ema 0 '
                "and a b1 above 0"
            )

    @property
    def decay(self) -> float:
        """The decoupled weight decay in force."""
        return self._coefficients.weight_decay

    def build(self, total_steps: int) -> tuple[optax.GradientTransformationExtraArgs, LearningRate]:
        """Make the transform for a run of `total_steps`, whose `update` takes `step=`, and the rate of each step.

        The transform's `init` raises UserError where a name in `freeze` or `groups` is no parameter's.
        """
        chain: list[optax.GradientTransformation] = []
        if self.clip_value is not None:
            chain.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            chain.append(optax.clip_by_global_norm(self.clip_norm))
        if self.l2:
            chain.append(optax.add_decayed_weights(self.l2, mask=rules.is_decayed))
        transform = optax.chain(*chain, self._update(total_steps))
        if self.accumulate > 1:
            transform = accumulate_gradients(transform, self.accumulate)
        if self.freeze or any(group.frozen for group in self.groups):
            transform = mask_frozen(transform, self.trainable)
        return transform, self.rate(total_steps)

    def rate(self, total_steps: int) -> LearningRate:
        """Make the function from a step, 0 ... total_steps - 1, to its learning rate."""
        updates = total_steps // self.accumulate
        multiplier = make_multiplier(
            self.schedule, updates, self.warmup, self.min_ratio, self.milestones, self.factor
        )  # fmt: skip

        def rate(step: object) -> Array:
            return self.learning_rate * multiplier(
                jnp.asarray(step) // self.accumulate if self.accumulate > 1 else step
            )

        return rate

    def trainable(self, params: object) -> Any:
        """Return a tree like `params` of True where a parameter is trained and False where it is frozen.

        Raises:
            UserError: a name in `freeze` or `groups` is no parameter's.
        """
        return jax.tree.map(lambda label: label != FROZEN, self._labels(params))

    def _labels(self, params: object) -> Any:
        return label_params(params, self.groups, self.freeze)

    @property
    def _coefficients(self) -> Coefficients:
        names = [field.name for field in dataclasses.fields(Coefficients)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(Coefficients.usual(self.rule), **given)

    def _update(self, total_steps: int) -> optax.GradientTransformationExtraArgs:
        """Make steps 4 to 6, for each group separately."""
        make = by_hand.make_update if self.engine == "numpy" else rules.make_update
        own = make(self.rule, self._coefficients, self.rate(total_steps))
        if all(group.frozen for group in self.groups):
            return own
        # `partition` needs a transform for every label, so FROZEN has one although no frozen parameter gets here.
        transforms = {REST: own, FROZEN: optax.set_to_zero()}
        for index, group in enumerate(self.groups):
            if not group.frozen:
                transforms[str(index)] = self._of_group(group)._update(total_steps)
        return optax.partition(transforms, self._labels)

    def _of_group(self, group: Group) -> Optimizer:
        """Return the settings by which a group's parameters are trained."""
        rule = self.rule if group.rule is None else group.rule
        return dataclasses.replace(
            self, groups=(), freeze=(), learning_rate=self.learning_rate * group.scale, rule=rule,
            dampened=self.dampened and rule in ("momentum", "nesterov"),
            weight_decay=self.weight_decay if group.weight_decay is None else group.weight_decay,
        )  # fmt: skip
