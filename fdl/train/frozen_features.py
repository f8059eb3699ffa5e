"""Training on the features of a frozen backbone: computed once for every row, kept on the disk, then read at every step.

The model is cut at its first part that is trained: what reaches it is a row's features. A step runs the whole model on
placeholders and puts the features in at the cut; nothing depends on what was computed before it, so the compiler leaves
that out. State, checkpoints and parameters are those of the whole model, and so is what is evaluated and exported at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fdl import environment
from fdl.checkpoint import weights
from fdl.data import pipeline
from fdl.data.digests import sha256_of
from fdl.data.fitted import FittedOps
from fdl.distributed import processes
from fdl.tasks.linear_baseline import FEATURES
from fdl.train.program import Program
from fdl.train.step import output_step
from fdl.types import Arrays, UserError, count_examples, leaf_name, named_leaves

IDLE_DAYS = 30
"""Features that no run has read for so long are deleted when others are written."""
_TOLERANCE = 1e-3  # of the outputs' spread: the batch is computed in two programs, which round differently
Variables = Mapping[str, Any]
Interceptor = Callable[[Any, Any, Any, nn.module.InterceptorContext], Any]


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where the trained part of a model begins.

    Attributes:
        module: the path of its first part, such as ("output",).
        inputs: shape and dtype of one prepared row's "inputs", which the model is traced with.
    """

    module: tuple[str, ...]
    inputs: Any

    def placeholders(self, rows: int) -> Any:
        """Make zeros in place of the prepared inputs of so many rows."""
        return jax.tree.map(lambda spec: jnp.zeros((rows, *spec.shape), spec.dtype), self.inputs)

    def resumed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Make a step function (state or variables, batch, ...) take features as a batch's "inputs"."""

        def on_features(first: Any, batch: Arrays, *rest: Any) -> Any:
            features = batch["inputs"]
            with nn.intercept_methods(self._first_call(lambda given: features)):
                return step(first, {**batch, "inputs": self.placeholders(len(features))}, *rest)

        return on_features

    def _first_call(self, replace: Callable[[Any], Any]) -> Interceptor:
        """Replace the first argument of the first part's first call within each call of the model."""
        called = False

        def call(next_fn: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            nonlocal called
            if context.method_name == "__call__":
                called = called and context.module.path != ()  # a new call of the model begins
                if context.module.path == self.module and not called:
                    called, args = True, (replace(args[0]), *args[1:])
            return next_fn(*args, **kwargs)

        return call

    def features(self, program: Program, variables: Variables, batch: Arrays) -> tuple[Any, Arrays, Any]:
        """Compute (features, the prepared batch's other columns, the model's outputs); traced."""
        caught: list[Any] = []

        def note(given: Any) -> Any:
            caught.append(given)
            return given

        prepared = program.data.prepare(batch, None)
        with nn.intercept_methods(self._first_call(note)):
            outputs = output_step(
                variables, prepared, model=program.experiment.model, task=program.experiment.task, prepare=_unchanged
            )
        return caught[0], {name: column for name, column in prepared.items() if name != "inputs"}, outputs


def find_cut(program: Program) -> Cut:
    """Find the first part of the model that is trained whole, or that drops units at random.

    Raises:
        UserError: nothing is frozen, nothing is trained, or training changes the rows at random.
    """
    experiment = program.experiment
    trained = experiment.optimizer.trainable(program.state_spec.params)
    if all(jax.tree.leaves(trained)):
        raise UserError("cache_frozen: nothing of the model is frozen; name its frozen parts in optimizer.freeze")
    if program.data.augment.ops:
        raise UserError(
            "cache_frozen: features are computed once, and data.augment changes the rows at every step; leave one of them out"
        )
    by_name = {leaf_name(path): on for path, on in jax.tree_util.tree_flatten_with_path(trained)[0]}
    found: list[tuple[str, ...]] = []

    def note(next_fn: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        if path and not found and context.method_name == "__call__":
            within = [on for name, on in by_name.items() if name.startswith("/".join(path) + "/")]
            if (within and all(within)) or isinstance(context.module, nn.Dropout):
                found.append(path)
        return next_fn(*args, **kwargs)

    row = jax.eval_shape(program.prepared_row)
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda variables, batch: output_step(
                variables, batch, model=experiment.model, task=experiment.task, prepare=_unchanged
            ),
            program.variables_spec, row,
        )  # fmt: skip
    if not found:
        raise UserError("cache_frozen: no part of the model is trained whole; freeze less, or leave cache_frozen out")
    inputs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), row["inputs"])
    return Cut(found[0], inputs)


def training_program(
    program: Program, variables: Callable[[], Variables], between: Callable[[], None] = lambda: None
) -> tuple[Program, str]:
    """Return the program that trains, and a line about its features: `program` itself and "" unless it has `cache_frozen`.

    Args:
        variables: returns the run's variables; of its frozen part they are the same at every step.
        between: called after each batch; may raise to leave early (nothing is kept then).

    Raises:
        UserError: see `find_cut`; or the outputs depend on more of the frozen part than reaches the cut.
    """
    if not program.experiment.cache_frozen:
        return program, ""
    cut = find_cut(program)
    began = time.monotonic()
    local = processes.to_host(variables())  # by every process, for they make the state together
    rows, path = processes.first_then_others(lambda: _read_or_compute(program, cut, local, between))
    facts = program.data.splits.facts
    facts = dataclasses.replace(facts, extra={**facts.extra, FEATURES: "/".join(cut.module)})
    splits = dataclasses.replace(program.data.splits, facts=facts, **rows)
    data = dataclasses.replace(program.data, splits=splits, augment=FittedOps(), prepare=FittedOps())
    size = ", ".join(f"{count_examples(part):,} {name}" for name, part in rows.items() if part is not None)
    line = f"features: what reaches {'/'.join(cut.module)}, of {size} rows, in {path} after {time.monotonic() - began:.1f} s"
    return dataclasses.replace(program, data=data, cut=cut), line


def _read_or_compute(
    program: Program, cut: Cut, local: Variables, between: Callable[[], None]
) -> tuple[dict[str, Any], Path]:
    splits = program.data.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    size = program.experiment.eval_batch_size
    compute = jax.jit(functools.partial(cut.features, program))
    spec = pipeline.row_spec({k: v for k, v in splits.train.items() if k != "mask"}, size)
    # The program's text holds all code and constants that decide the features; the rest are the rows and the weights.
    text = compute.lower(jax.eval_shape(lambda: local), spec).as_text()
    key = hashlib.sha256(
        f"{jax.__version__} {jax.devices()[0].device_kind} {text} {sha256_of(*parts.values())}".encode()
    )
    trained = named_leaves({"params": program.experiment.optimizer.trainable(program.state_spec.params)})
    for name, leaf in named_leaves(local).items():
        if not trained.get(name, False):
            key.update(name.encode() + np.ascontiguousarray(leaf).tobytes())
    path = environment.cache_dir() / "features" / f"{key.hexdigest()[:32]}.safetensors"
    if path.is_file():
        with contextlib.suppress(UserError):  # damaged: it is made again
            return _nested(weights.load(path), parts), path
    on_device = jax.device_put(local)
    found = {
        name: None if rows is None else _features_of(compute, cut, program, on_device, rows, size, between)
        for name, rows in parts.items()
    }
    weights.save(path, named_leaves({name: rows for name, rows in found.items() if rows is not None}))
    _drop_idle(path.parent)
    return found, path


def _features_of(
    compute: Callable[..., Any], cut: Cut, program: Program, variables: Variables, rows: Arrays, size: int,
    between: Callable[[], None],
) -> Arrays:  # fmt: skip
    total = count_examples(rows)
    parts: list[Arrays] = []
    columns = {name: column for name, column in rows.items() if name != "mask"}
    for batch in pipeline.padded_batches(columns, size):
        del batch["mask"]
        features, others, outputs = jax.device_get(compute(variables, batch))
        if not parts:
            _check(program, cut, variables, features, others, outputs)
        parts.append({**others, "inputs": features})
        between()
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *parts)
    return joined | ({"mask": rows["mask"]} if "mask" in rows else {})


def _check(program: Program, cut: Cut, variables: Variables, features: Any, others: Arrays, outputs: Any) -> None:
    """Refuse a cut that something of the frozen part goes around."""
    experiment = program.experiment
    step = functools.partial(output_step, model=experiment.model, task=experiment.task, prepare=_unchanged)
    again = jax.device_get(jax.jit(cut.resumed(step))(variables, {**others, "inputs": features}))
    for found, wanted in zip(jax.tree.leaves(again), jax.tree.leaves(outputs), strict=True):
        if not np.allclose(found, wanted, rtol=0, atol=_TOLERANCE * max(float(np.ptp(wanted)), 1e-30)):
            raise UserError(
                f"cache_frozen: the outputs depend on more of the frozen part than reaches {'/'.join(cut.module)}; freeze whole "
                "parts up to one that everything passes, or leave cache_frozen out"
            )


def _nested(arrays: Mapping[str, np.ndarray], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the splits from "train/inputs", "train/targets", ..."""
    splits: dict[str, Any] = {}
    for name, array in arrays.items():
        *above, last = name.split("/")
        node = splits
        for part in above:
            node = node.setdefault(part, {})
        node[last] = array
    return {name: splits.get(name) for name in parts}


def _drop_idle(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            if time.time() - path.stat().st_atime > IDLE_DAYS * 86400:
                path.unlink()


def _unchanged(batch: Arrays, draw: Any) -> Arrays:
    return batch
