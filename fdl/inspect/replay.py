"""--mode=replay: a step that was not finite, repeated from the checkpoint before it and inspected leaf by leaf."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.checkpoint import manifest, saving
from fdl.data import pipeline
from fdl.tasks.losses import mean_of, weighted_sums
from fdl.train import step
from fdl.train.program import Program
from fdl.train.schedule import Call
from fdl.types import Arrays, Batch, UserError, named_leaves, take

MOST_EXAMPLES = 20


@dataclasses.dataclass(frozen=True)
class ArrayReport:
    """One array of the step.

    Attributes:
        name: "inputs", "outputs", "loss" or "gradient of params/...".
        bad: how many of its numbers are not finite, of `size`.
        largest: the largest finite magnitude.
    """

    name: str
    bad: int
    size: int
    largest: float


@dataclasses.dataclass(frozen=True)
class Replay:
    """A bad step as it was.

    Attributes:
        step: its number; since: the step of the checkpoint it was reached from; fault: what the run had found.
        arrays: in the order of the computation.
        examples: (row of the training split, loss) of those whose loss is not finite, or of the largest losses.
    """

    step: int
    since: int
    fault: str
    arrays: list[ArrayReport]
    examples: list[tuple[int, float]]


def newest_record(workdir: Path) -> dict[str, Any]:
    """Read the newest bad_step_<n>.json.

    Raises:
        UserError: there is none.
    """
    found = sorted(workdir.glob("bad_step_*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UserError(
            f"{workdir} has no bad_step_<n>.json: none of its steps was bad, and there is nothing to replay"
        )
    return dict(json.loads(found[-1].read_text()))


def replay(program: Program, workdir: Path) -> Replay:
    """Train from the newest checkpoint before the bad step up to it, and inspect that step.

    The steps in between are the run's own: its seed is the program's, and the steps that it had left out before this one are
    left out again. The bad step is inspected on one device, so for pmap, where every device draws its own dropout, it is
    the same batch with other dropout.

    Args:
        program: of the run in `workdir`, with its seed.

    Raises:
        UserError: there is nothing to replay, or the run's checkpoints are gone.
    """
    record = newest_record(workdir)
    bad = int(record["step"])
    state = _state_before(program, workdir / "checkpoints", bad)
    since = int(state.step)
    rows = program.data.splits.train
    batches = pipeline.numpy_feed(rows, program.stream, since, bad - 1)
    for at in range(since, bad - 1):
        call = Call(at + 1, at + 1, excluded=at + 1 in record["excluded"])
        state, _ = program.compiled.run_steps(state, call, batches)
    examples = np.array(record["rows"])
    arrays, losses = _look(program, jax.device_get(state), take(rows, examples))
    losses = losses.reshape(len(examples), -1).mean(1)
    worst = np.argsort(np.where(np.isfinite(losses), losses, np.inf), kind="stable")[::-1][:MOST_EXAMPLES]
    fault = f"{record['what']} {record['fault']}"
    return Replay(bad, since, fault, arrays, [(int(examples[i]), float(losses[i])) for i in worst])


def _state_before(program: Program, root: Path, bad: int) -> step.State:
    """Restore the newest good checkpoint before a step (the start, where there is none)."""
    if not root.is_dir():
        raise UserError(f"{root} is missing: the steps before step {bad} cannot be made again; bring the folder back")
    steps = sorted((int(p.name) for p in root.iterdir() if p.name.isdigit() and int(p.name) < bad), reverse=True)
    for number in steps:
        saved = manifest.at_step(root, number)
        if saved is not None:
            return saving.restore(saved, program.state_spec)
    return program.compiled.initial_state()


def _look(program: Program, state: step.State, batch: Arrays) -> tuple[list[ArrayReport], np.ndarray]:
    """Compute the step's arrays one by one; return the findings in each, and the losses of the examples."""
    experiment, data = program.experiment, program.data
    prepared = functools.partial(step.training_batch, augment=data.augment, prepare=data.prepare)
    model, task = experiment.model, experiment.task

    def run(params: object, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
        batch, rngs = prepared(batch, key, state.step)
        variables = {"params": params, **state.stats}
        outputs, _ = task.apply(model, variables, batch, train=True, rngs=rngs, mutable=list(state.stats))
        loss = task.score(outputs, batch)["loss"]
        sums = weighted_sums({"loss": loss}, batch.get("mask"))
        return mean_of(*sums["loss"]), (batch["inputs"], outputs, loss[0] if isinstance(loss, tuple) else loss)

    key = jax.random.key(program.seed)
    grads, (inputs, outputs, losses) = jax.jit(jax.grad(run, has_aux=True))(state.params, batch, key)
    named = {"inputs": inputs, "parameters": state.params, "outputs": outputs, "loss": losses, "gradient of": grads}
    found = []
    for name, leaf in named_leaves(named).items():
        values = np.asarray(leaf, np.float64)
        good = np.isfinite(values)
        largest = float(np.abs(values[good]).max(initial=0.0))
        found.append(
            ArrayReport(name.replace("gradient of/", "gradient of "), int((~good).sum()), values.size, largest)
        )
    order = list(named)
    found.sort(key=lambda array: next(i for i, name in enumerate(order) if array.name.startswith(name)))
    return found, np.asarray(jnp.asarray(losses, jnp.float32))
