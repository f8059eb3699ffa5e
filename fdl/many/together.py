"""Several runs of one small experiment at once, one to a seed: the same step, mapped over the seeds, looped on the device.

A small net's step takes less time than its dispatch. Here the rows lie on the device and the loop over the steps runs
there too, so that five seeds of a net on 2-D points train faster than one of them alone in the ordinary loop.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl import resident
from fdl.data import pipeline
from fdl.logs import Row
from fdl.program import Program, metrics_of, view
from fdl.progress import Progress, arrive, bad_step, begin, judge, place_of
from fdl.tasks.task import View
from fdl.types import Arrays, Metrics, is_due

MOST_BYTES = 1 << 28
"""Of the data, which lie on the device."""
_WATCHED = ("first_bad", "loss", "learning_rate")


@dataclasses.dataclass(frozen=True)
class Finished:
    """What one seed came to.

    Attributes:
        rows: as in metrics.jsonl of a run of that seed alone.
        metrics: "train/...", "eval/..." and "test/..." of the state that validation chose (without it, of the last).
        failed: why there are no metrics: its loss, or gradient, was not finite; "" where all is well.
        view: the trained model; None where it failed.
    """

    seed: int
    rows: list[Row]
    metrics: Metrics
    steps: int
    best_step: int | None
    failed: str
    view: View | None


def obstacle(program: Program) -> str:
    """Why the seeds of this experiment cannot be trained together; "" where they can."""
    experiment, splits = program.experiment, program.data.splits
    leaves = jax.tree.leaves([splits.train, splits.validation or {}, splits.test])
    if program.layout.num_devices > 1:
        return "there are several devices"
    if experiment.patience or experiment.stop_at is not None or experiment.on_bad_step != "stop":
        return "patience, stop_at and on_bad_step would end the seeds at different steps"
    if program.period("sample") or experiment.init_from:
        return "sample_every and init_from are for a single run"
    if not all(isinstance(leaf, np.ndarray) for leaf in leaves) or sum(leaf.nbytes for leaf in leaves) > MOST_BYTES:
        return "the data are too large to lie on the device"
    return resident.obstacle(program.lowered)


def train_together(
    program: Program, seeds: Sequence[int], between: Callable[[], None] = lambda: None
) -> list[Finished]:
    """Train a run of each seed as `fdl.train.train` would, to rounding: the same parameters, batches and draws.

    Args:
        program: the experiment's, of any seed; see `obstacle`.
        between: called every so often; may raise to leave early (nothing is kept then).
    """
    programs = [dataclasses.replace(program, seed=seed) for seed in seeds]
    keys = jnp.stack([each.key for each in programs])
    state = best = jax.jit(jax.vmap(program.init))(keys)
    splits, total = program.data.splits, program.total_steps
    run, score, train = _runner(program), jax.jit(jax.vmap(program.score, (0, None))), jax.device_put(splits.train)
    choose = jax.jit(_choose)

    def evaluate(variables: Any, arrays: Arrays) -> list[Metrics]:
        batches = pipeline.padded_batches(arrays, program.experiment.eval_batch_size)
        parts = jax.device_get([score(variables, batch) for batch in batches])
        return [metrics_of(program, [{k: v[i] for k, v in part.items()} for part in parts]) for i in range(len(seeds))]

    progress: list[Progress] = [begin() for _ in seeds]
    rows: list[list[Row]] = [[] for _ in seeds]
    failed = [""] * len(seeds)
    for at, until in _chunks(program):
        between()
        order = np.zeros((resident.LONGEST, len(seeds), program.experiment.batch_size), np.int32)
        for i, each in enumerate(programs):
            order[: until - at, i] = [each.stream.rows(step) for step in range(at, until)]
        state, sums, bad = jax.block_until_ready(run(state, keys, train, order, until - at))
        evaluated: Sequence[Mapping[str, float]] = [{}] * len(seeds)
        if splits.validation is not None and (is_due(until, program.period("eval")) or until == total):
            evaluated = evaluate(state.variables, splits.validation)
        sums, bad = jax.device_get((sums, bad))
        for i in range(len(seeds)):
            fault = bad_step(program, int(bad["step"][i]), {name: float(bad[name][i]) for name in _WATCHED})
            failed[i] = failed[i] or (str(fault) if fault else "")
            if failed[i]:
                continue
            progress[i] = _added(progress[i], {name: float(value[i]) for name, value in sums.items()}, until - at)
            progress[i], row = arrive(program, until, {}, progress[i])
            if evaluated[i]:
                row = place_of(program, until) | row | {f"eval/{name}": v for name, v in evaluated[i].items()}
                progress[i] = judge(program, until, dict(evaluated[i]), progress[i])
            rows[i] += [row] if row else []
        if evaluated[0]:
            best = choose(np.array([each["best_step"] == until for each in progress]), state, best)
    chosen = best if splits.validation is not None else state
    parts = {"train": splits.train, "eval": splits.validation, "test": splits.test}
    found = {name: evaluate(chosen.variables, part) for name, part in parts.items() if part is not None}
    return [
        Finished(seed, rows[i], {}, total, None, failed[i], None)
        if failed[i]
        else Finished(
            seed, rows[i], {f"{name}/{k}": v for name, of in found.items() for k, v in of[i].items()}, total,
            progress[i]["best_step"], "", view(programs[i], jax.tree.map(lambda leaf: leaf[i], chosen.variables)),
        )
        for i, seed in enumerate(seeds)
    ]  # fmt: skip


def _chunks(program: Program) -> Iterator[tuple[int, int]]:
    """(first, last) steps of the stretches between which the host has something to do."""
    total, stops = program.total_steps, {program.total_steps}
    for period in (program.period("log"), program.period("eval")):
        stops |= {round(number * period) for number in range(1, int(total / period) + 1)}
    for first, last in itertools.pairwise([0, *sorted(stop for stop in stops if stop <= total)]):
        yield from itertools.pairwise([*range(first, last, resident.LONGEST), last])


def _runner(program: Program) -> Callable[..., Any]:
    """(states, keys, rows of the split, order [N, S, B], number of steps) -> states, sums of metrics, the bad step."""

    def run(states: Any, keys: Any, train: Any, order: Any, count: Any) -> Any:
        def one(state: Any, key: Any, rows: Any) -> Any:
            return program.step(state, jax.tree.map(lambda leaf: leaf[rows], train), key)

        def body(number: Any, carry: Any) -> Any:
            states, sums, bad = carry
            at = states.step
            rows = lax.dynamic_index_in_dim(order, number, keepdims=False)
            states, metrics = jax.vmap(one)(states, keys, rows)
            first = (bad["first_bad"] == 0) & (metrics["first_bad"] > 0)
            now = {name: metrics[name].astype(jnp.float32) for name in _WATCHED} | {"step": at + 1}
            bad = jax.tree.map(lambda new, old: jnp.where(first, new, old), now, bad)
            del metrics["first_bad"]
            return states, jax.tree.map(jnp.add, sums, metrics), bad

        shapes = jax.eval_shape(jax.vmap(one), states, keys, order[0])[1]
        sums = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items() if name != "first_bad"}
        bad = {name: jnp.zeros(len(keys), jnp.float32) for name in _WATCHED} | {"step": jnp.zeros(len(keys), jnp.int32)}
        return lax.fori_loop(0, count, body, (states, sums, bad))

    return jax.jit(run)


def _choose(chosen: Any, new: Any, old: Any) -> Any:
    def each(new: Any, old: Any) -> Any:
        return jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(each, new, old)


def _added(progress: Progress, sums: Mapping[str, float], count: int) -> Progress:
    before = progress["sums"]
    return progress | {
        "sums": {name: before.get(name, 0.0) + value for name, value in sums.items()},
        "count": progress["count"] + count,
    }
