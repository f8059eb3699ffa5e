"""--mode=check_gradients: is the gradient that the training step uses the derivative of its loss?

The loss of step 0 (its augmentation and its dropout, BatchNorm in training) is taken over a few of the step's rows, near the
run's first parameters: each number is moved a little, so that no bias is exactly zero, where ReLU has a kink, and nothing that
starts at zero hides the layers before it. Everything is computed in float64 (`fdl.inspect.float64`), so that dL/dw and
(L(w + h) - L(w - h)) / 2h agree to about 1e-9; in float32 no h would do: the loss has seven digits. The numbers tried
are some of each array's, half of them where the gradient is largest, and one direction through the whole array.

At a kink (ReLU at 0, a tie under a maximum) the two need not agree, and neither is wrong: where the loss along the line is
not smooth, and by as much as the two differ, the entry is set aside and counted. The scratch twin is
`fdl.scratch.gradient_check`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from fdl.inspect import float64
from fdl.rundir import logs
from fdl.train import step
from fdl.train.program import Program
from fdl.types import RunError, leaf_name, named_leaves, take

LIMIT = 1e-6
"""A larger relative difference is an error. Right ones measured 1e-10 to 1e-8, in a ResNet with BatchNorm over four images
2e-7; a backward pass that is a thousandth too large measures 5e-4."""
_STEP = 1e-5  # h: its truncation, h^2 L''' / 6, and its rounding, 1e-16 L / h, are about the same
_ROUNDING = 1e-9  # rounding of a difference quotient, for a loss of about 1
_MOVED = 0.02  # standard deviation of what is added to the first parameters
_MOST = 300  # entries in total, as long as every array can have two

Loss = Callable[[list[np.ndarray]], float]


@dataclasses.dataclass(frozen=True)
class CheckedArray:
    """One array of parameters.

    Attributes:
        name: "dense1/kernel"; shape: its shape.
        entries: numbers compared (the direction through the whole array is one more); kinks: those set aside.
        difference: ||a - n|| / (||a|| + ||n||) of the gradient a and the finite differences n, over the entries or along the
            direction, whichever is larger.
        float32: the same of the gradient as the step computes it and in float64, over the whole array (NaN where it is zero).
        verdict: "zero" where both are; "kinks" where nothing else was met, so that nothing can be said.
    """

    name: str
    shape: tuple[int, ...]
    entries: int
    kinks: int
    difference: float
    float32: float
    verdict: Literal["right", "wrong", "zero", "kinks"]


@dataclasses.dataclass(frozen=True)
class Checked:
    """The findings: the arrays in the order of their names, the batch's loss, and the largest difference that is right."""

    arrays: list[CheckedArray]
    examples: int
    loss: float
    limit: float

    @property
    def worst(self) -> CheckedArray:
        """The array with the largest difference, among the wrong ones if there are any."""
        return max(self.arrays, key=lambda a: (a.verdict == "wrong", a.difference))


def check(program: Program, examples: int = 4, entries: int = 10, limit: float = LIMIT) -> Checked:
    """Compare the gradient of step 0, on one CPU of this process, whatever the layout.

    Args:
        examples: rows of the batch, at most the batch's own.
        entries: numbers tried of each array; fewer where there are many arrays.
        limit: the largest relative difference of a right gradient.

    Raises:
        RunError: the loss is not finite.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        loss, params = _loss(program, examples)
        narrow = named_leaves(jax.device_get(jax.jit(jax.grad(loss))(params)))
        names, leaves = zip(*named_leaves(params).items(), strict=True)
        start = [np.asarray(leaf, np.float64) for leaf in leaves]
        value, gradient = _in_float64(loss, params)
        with float64.enabled():
            grads = dict(zip(names, gradient(start), strict=True))
            rng = np.random.default_rng(0)
            each = min(entries, max(2, _MOST // len(names)))
            at_start = value(start)
            if not math.isfinite(at_start):
                raise RunError(
                    f"the loss of the first batch is {at_start}: nothing has a slope there; look at the data"
                )
            probe = functools.partial(_array, value, start, at_start, limit, each, rng)
            found = [probe(i, name, grads[name], narrow[name]) for i, name in enumerate(names)]
            return Checked(found, examples, at_start, limit)


def show(checked: Checked, say: Callable[[str], None] = print) -> None:
    """Print the arrays as a table, and a line that says whether all are right.

    Raises:
        RunError: one is not; the worst is named.
    """
    words = {"right": "right", "wrong": "WRONG", "zero": "both zero", "kinks": "kinks alone"}
    rows = []
    for array in checked.arrays:
        shape = " x ".join(map(str, array.shape))
        figures = ["-" if math.isnan(x) else f"{x:.1e}" for x in (array.difference, array.float32)]
        rows.append((array.name, shape, f"{array.entries:,}", f"{array.kinks:,}", *figures, words[array.verdict]))
    logs.table(("array", "shape", "entries", "at kinks", "difference", "of float32", ""), rows, range(2, 6))
    seen = [array for array in checked.arrays if array.verdict != "kinks"]
    wrong, worst = [array for array in seen if array.verdict == "wrong"], checked.worst
    if wrong:
        others = f" (as are {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise RunError(
            f"the gradient of {worst.name} is wrong{others}: it differs from finite differences of the loss by "
            f"{worst.difference:.2g}, {checked.limit:g} being the limit; look at the backward pass of its layer and of "
            "those after it"
        )
    unseen = len(checked.arrays) - len(seen)
    note = f"; {unseen} more met nothing but kinks" if unseen else ""
    say(
        f"gradients right: {sum(array.entries for array in seen):,} entries in {len(seen)} arrays, largest relative "
        f"difference {worst.difference:.1g}{note}"
    )


def _loss(program: Program, examples: int) -> tuple[Callable[[Any], jax.Array], Any]:
    """Return the loss of step 0 over its first rows as a function of the parameters, and the parameters to check it near."""
    experiment, data = program.experiment, program.data
    rows = take(data.splits.train, program.stream.rows(0)[:examples])
    prepared = jax.jit(functools.partial(step.training_batch, augment=data.augment, prepare=data.prepare))
    batch, rngs = prepared(jax.tree.map(np.asarray, rows), jax.random.key(program.seed), 0)
    state = jax.device_get(program.compiled.initial_state())
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (leaf + _MOVED * rng.standard_normal(leaf.shape)).astype(leaf.dtype), state.params
    )

    def loss(params: object) -> jax.Array:
        model, task = experiment.model, experiment.task
        return step.mean_loss(params, stats=state.stats, batch=batch, rngs=rngs, model=model, task=task)[0]

    return loss, params


def _in_float64(loss: Callable[[Any], jax.Array], params: object) -> tuple[Loss, Callable[[list[np.ndarray]], Any]]:
    """Return (the loss, its gradient) as functions of the parameters' leaves in the order of `named_leaves`."""
    names = list(named_leaves(params))
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    order = [names.index(leaf_name(path)) for path, _ in paths]

    def of_leaves(function: Callable[[Any], object]) -> Callable[[list[np.ndarray]], Any]:
        wide = float64.widened(function, params)
        return jax.jit(lambda leaves: wide(jax.tree.unflatten(tree, [leaves[i] for i in order])))

    value, gradient = of_leaves(loss), of_leaves(lambda p: list(named_leaves(jax.grad(loss)(p)).values()))
    return lambda leaves: float(value(leaves)), lambda leaves: jax.device_get(gradient(leaves))


def _array(
    value: Loss, start: list[np.ndarray], at_start: float, limit: float, entries: int, rng: np.random.Generator,
    place: int, name: str, gradient: np.ndarray, narrow: np.ndarray,
) -> CheckedArray:  # fmt: skip
    leaf = start[place]
    noise = _ROUNDING * max(1.0, abs(at_start))
    count = min(entries, leaf.size)
    if not np.isfinite(gradient).all():
        return CheckedArray(name, leaf.shape, count, 0, math.inf, math.nan, "wrong")

    def along(direction: np.ndarray) -> tuple[float, float]:
        """Return the slope in this direction by the gradient and by finite differences."""
        exact = float(np.vdot(gradient, direction))

        def line(h: float) -> float:
            return value([*start[:place], leaf + h * direction, *start[place + 1 :]])

        return exact, _slope(line, at_start, exact, limit, noise)

    largest = np.argsort(-np.abs(gradient).ravel(), kind="stable")[: count - count // 2]
    rest = np.setdiff1d(np.arange(leaf.size), largest)
    pairs = []
    for number in np.concatenate([largest, rng.choice(rest, count - len(largest), replace=False)]):
        one = np.zeros(leaf.size)
        one[number] = 1
        pairs.append(along(one.reshape(leaf.shape)))
    # A random direction alone is nearly orthogonal to the gradient of a large array, and would see little of it.
    random = rng.standard_normal(leaf.shape)
    ahead = gradient / max(float(np.linalg.norm(gradient)), np.finfo(np.float64).tiny)
    pairs.append(along(ahead + random / np.linalg.norm(random)))

    met = np.array(pairs)
    smooth = np.isfinite(met[:, 1])
    wrong, difference, seen = False, 0.0, False
    for part in (slice(0, -1), slice(-1, None)):
        a, n = met[part][smooth[part]].T
        error, total = float(np.linalg.norm(a - n)), float(np.linalg.norm(a) + np.linalg.norm(n))
        if total > 8 * noise:
            seen = True
            difference = max(difference, error / total)
            wrong |= error > max(limit * total, 4 * noise * math.sqrt(len(a)))
    kinks = int((~smooth).sum())
    verdict: Any = "wrong" if wrong else "right" if seen else "kinks" if kinks else "zero"
    whole = float(np.linalg.norm(gradient) + np.linalg.norm(narrow))
    float32 = float(np.linalg.norm(gradient - np.asarray(narrow, np.float64))) / whole if seen and whole else math.nan
    return CheckedArray(name, leaf.shape, count, kinks, difference, float32, verdict)


def _slope(line: Callable[[float], float], at_start: float, exact: float, limit: float, noise: float) -> float:
    """Return the slope of a line at 0 by finite differences, `exact` being the one expected; NaN at a kink."""
    up, down = line(_STEP), line(-_STEP)
    wide = (up - down) / (2 * _STEP)
    if abs(wide - exact) <= max(limit / 100 * abs(exact), noise):
        return wide
    up_near, down_near = line(_STEP / 4), line(-_STEP / 4)
    near = (up_near - down_near) / (_STEP / 2)
    if abs(near - exact) <= max(limit * abs(exact), 4 * noise):
        return near
    # On a smooth line the slope does not depend on h, and the second difference grows as h^2. Where the slope jumps by J,
    # at 0 or within h, the sum of these two is at least the error that the jump makes in `near`.
    bend = abs((up + down - 2 * at_start) - 16 * (up_near + down_near - 2 * at_start)) / _STEP + abs(wide - near)
    return math.nan if abs(near - exact) <= 2 * bend else near
