"""One experiment with its data on one layout: the compiled programs of a run, and what they are asked for."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl import scratch
from fdl.checkpoint import weights
from fdl.data import pipeline
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment
from fdl.tasks.task import View
from fdl.train import resident, step
from fdl.types import Arrays, Batch, Duration, Metrics, UserError, count_examples, take


@dataclasses.dataclass(frozen=True)
class Program:
    """What a run needs of compiled code, each piece made when it is first asked for.

    Attributes:
        seed: decides the initial parameters, the order of examples and all randomness.
        total_steps: of the whole run.
    """

    experiment: Experiment
    data: pipeline.Prepared
    layout: layouts.Layout
    seed: int
    total_steps: int

    def period(self, name: str) -> float:
        """How many steps lie between two of the loop's "log"s, "eval"s, "save"s or "sample"s; 0: never."""
        duration: Duration = getattr(self.experiment, f"{name}_every")
        return duration.in_steps(self.experiment.batch_size, count_examples(self.data.splits.train), self.total_steps)

    @functools.cached_property
    def key(self) -> jax.Array:
        """The key of all randomness but the data's order."""
        return jax.jit(self._key, out_shardings=self.layout.replicated)()

    @functools.cached_property
    def key_spec(self) -> jax.ShapeDtypeStruct:
        """The key's shape, for compiling where no array can be put."""
        return layouts.spec(jax.eval_shape(self._key), self.layout.replicated)

    def _key(self) -> jax.Array:
        return jax.random.key(self.seed)

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        """What the training and the evaluation step have in common."""
        model = layouts.localise(self.experiment.model, self.layout)
        return {
            "model": model,
            "prepare": self.data.prepare,
            "task": self.experiment.task,
            "axis_name": self.layout.axis_name,
        }

    def init(self, key: jax.Array) -> step.State:
        """The state at step 0 that a key draws: pure, not yet compiled; without `initial`."""
        row = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), self.data.splits.test)
        optimizer = self.experiment.optimizer
        return step.init_state(
            key, row, model=self._settings["model"], prepare=self.data.prepare,
            tx=optimizer.build(self.total_steps)[0], ema=optimizer.ema > 0,
        )  # fmt: skip

    def start(self) -> step.State:
        """A new state at step 0, with `initial` weights where there are any."""
        state = layouts.compile_init(self.init, self.key, self.like)
        if self.initial is None:
            return state
        found = jax.tree.map(layouts.place, self.initial, self.like.variables)
        params, stats = found["params"], {name: found[name] for name in state.stats}
        tx, _ = self.experiment.optimizer.build(self.total_steps)
        opt_state = jax.jit(tx.init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.like.opt_state))(
            params
        )
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, stats=stats, opt_state=opt_state, ema=ema)

    @functools.cached_property
    def initial(self) -> Any:
        """The weights of the experiment's `init_from`, None where it names no file.

        Raises:
            UserError: the file cannot be read, or its arrays are not the model's.
        """
        path, wanted = self.experiment.init_from, self.like.variables
        if path is None:
            return None
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
        held = weights.load(Path(path).expanduser(), 2 * size + (1 << 20))
        return weights.fit(wanted, held, f"init_from={path}")

    @functools.cached_property
    def like(self) -> step.State:
        """The state's shapes, dtypes and shardings."""
        shapes = jax.eval_shape(self.init, self.key_spec)
        return layouts.spec(shapes, self.layout.placed(shapes))

    @functools.cached_property
    def stream(self) -> pipeline.Stream:
        """The training batches; this process feeds its own part of each."""
        num_examples = count_examples(self.data.splits.train)
        return pipeline.Stream(self.seed, self.experiment.batch_size, num_examples, *self.layout.feed)

    def advance(self, state: step.State, at: int, count: int, fed: Iterator[Batch]) -> tuple[step.State, Any]:
        """Steps at + 1 ... at + count and their metrics, each an array by step (or of the one step, a scalar).

        Args:
            state: after step `at`; donated.
            count: 1 unless the rows are `on_device`.
            fed: the batches from step `at` on; not touched where the rows are `on_device`.
        """
        if self.on_device is None:
            batch = layouts.shard(next(fed), self.layout)
            if jax.default_backend() == "cpu" and self.layout.num_devices == 1:
                # Or this step's temporaries are laid out beside those of the step that still computes: at fashion_cnn's peak
                # 160 MB more. The batch is ready by then, and what that step has measured is read while this one computes.
                jax.block_until_ready(state)
            return self.train(state, batch, self.key)
        rows = layouts.shard({"rows": resident.rows(self.stream, at, count)}, self.layout)
        return self.stretch(state, rows, (self.key, self.on_device, np.int32(count)))

    @functools.cached_property
    def train(self) -> Any:
        """(state, batch, key) -> (state, metrics), compiled; the state is donated."""
        return self.lowered.compile()

    @functools.cached_property
    def lowered(self) -> Any:
        """The training step as it is handed to the compiler."""
        return layouts.lower_train(self.step, self.like, self.batch, self.key_spec, self.layout)

    @functools.cached_property
    def stretch(self) -> Any:
        """(state, rows, (key, on_device, count)) -> (state, metrics), compiled: many steps (see `resident.looped`)."""
        return self.lowered_stretch.compile()

    @functools.cached_property
    def lowered_stretch(self) -> Any:
        """The loop of many steps as it is handed to the compiler."""
        rows = jax.ShapeDtypeStruct((self.experiment.batch_size, resident.LONGEST), np.int32)
        fixed = self.key_spec, layouts.spec(self.on_device, self.layout.replicated), self._count
        return layouts.lower_train(resident.looped(self.step), self.like, {"rows": rows}, fixed, self.layout)

    @property
    def _count(self) -> jax.ShapeDtypeStruct:
        return layouts.spec(jax.ShapeDtypeStruct((), np.int32), self.layout.replicated)

    @functools.cached_property
    def on_device(self) -> Arrays | None:
        """The training rows, whole on every device, where they lie there (`Data.resident`); else None.

        Raises:
            UserError: it was asked for and cannot be.
        """
        asked, rows = self.experiment.data.resident, self.data.splits.train
        can = processes.alone() and resident.plain(rows)
        if asked and not can:
            raise UserError("data.resident=true needs plain arrays and a single process; leave it out")
        if not can or not (self._worth_it if asked is None else asked):
            return None
        return jax.device_put(rows, self.layout.replicated)

    @property
    def _worth_it(self) -> bool:
        if self.experiment.data.feed != "auto" or not resident.small(self.data.splits.train):
            return False
        return jax.default_backend() != "cpu" or (self.layout.num_devices == 1 and not self.why_not_looped)

    @functools.cached_property
    def why_not_looped(self) -> str:
        """Why the step had better not run in a loop on a CPU; "" where it may."""
        from fdl.train.flops import step_flops  # which needs programs itself

        return resident.why_not_looped(self.lowered, step_flops(self))

    @functools.cached_property
    def sha256(self) -> str:
        """Of the training step as it is handed to the compiler: of all code and constants that decide what it computes."""
        lowered = self.lowered if self.on_device is None else self.lowered_stretch
        text = lowered.as_text()
        if "callback" in text:  # what is computed by hand is not in the program's text
            text += "".join(path.read_text() for path in sorted(Path(scratch.__file__).parent.glob("*.py")))
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def batch(self) -> Batch:
        """Shapes and dtypes of a global batch's raw rows."""
        return pipeline.row_spec(self.data.splits.train, self.experiment.batch_size)

    @functools.cached_property
    def step(self) -> Callable[..., Any]:
        """(state, batch, key) -> (state, metrics), pure and not yet compiled."""
        experiment = self.experiment
        optimizer = experiment.optimizer
        tx, learning_rate = optimizer.build(self.total_steps)
        return functools.partial(
            step.train_step, tx=tx, learning_rate=learning_rate, ema=optimizer.ema, augment=self.data.augment,
            loss_limit=experiment.loss_limit, skip_bad=experiment.on_bad_step == "skip", **self._settings,
        )  # fmt: skip

    @functools.cached_property
    def evaluate(self) -> Any:
        """(variables, batch) -> masked sums, compiled."""
        rows = take(self.data.splits.test, slice(0, 1))
        batch = next(pipeline.padded_batches(rows, self.experiment.eval_batch_size))
        return layouts.compile_eval(self.score, self.like.variables, batch, self.layout)

    @functools.cached_property
    def score(self) -> Callable[..., Any]:
        """(variables, batch) -> masked sums, pure and not yet compiled."""
        return functools.partial(step.eval_step, **self._settings)


def build(experiment: Experiment, data: pipeline.Prepared, seed: int, layout: layouts.Layout) -> Program:
    """The program of a run.

    Raises:
        UserError: a batch does not split over the devices.
    """
    sizes = {"batch_size": experiment.batch_size, "eval_batch_size": experiment.eval_batch_size}
    layouts.check_divides(layout, **sizes)
    total = Duration.parse(experiment.steps).in_steps(experiment.batch_size, count_examples(data.splits.train))
    return Program(experiment, data, layout, seed, round(total))


def evaluate(
    program: Program, variables: Mapping[str, Any], arrays: Arrays, between: Callable[[], None] = lambda: None
) -> Metrics:
    """The task's metrics over every row of `arrays`, each counted exactly once.

    Args:
        between: called after each batch (in every process equally often); may raise to leave early.
    """
    parts = []
    for batch in pipeline.padded_batches(arrays, program.experiment.eval_batch_size, *program.layout.feed):
        parts.append(program.evaluate(variables, layouts.shard(batch, program.layout)))
        between()
    return metrics_of(program, jax.device_get(parts))


def metrics_of(program: Program, parts: Sequence[Mapping[str, Any]]) -> Metrics:
    """The task's metrics from the masked sums of every batch."""
    sums = {name: math.fsum(float(part[name]) for part in parts) for name in parts[0]}
    count = sums.pop("count")
    return program.experiment.task.finish({name: value / count for name, value in sums.items()})


def view(program: Program, variables: Mapping[str, Any]) -> View:
    """The trained model as reports and predictions use it, on one device of this process; every process must call it."""
    model, prepare = program.experiment.model, program.data.prepare
    size = program.experiment.eval_batch_size
    predict = jax.jit(functools.partial(step.predict_step, model=model, prepare=prepare))
    local = processes.to_host(variables)

    def outputs(arrays: Arrays) -> Any:
        total = count_examples(arrays)
        inputs = {"inputs": arrays["inputs"]}
        parts = [predict(local, batch) for batch in _without_mask(pipeline.padded_batches(inputs, min(size, total)))]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:total], *jax.device_get(parts))

    def prepared(arrays: Arrays) -> Arrays:
        return jax.device_get(prepare(arrays, None))

    def augmented(arrays: Arrays) -> Arrays:
        rows = jax.numpy.arange(count_examples(arrays))
        draw = step.example_draw(jax.random.fold_in(jax.random.key(program.seed), 0), rows)
        return jax.device_get(prepare(program.data.augment(arrays, draw), None))

    return View(program.data.splits, model, local, outputs, prepared, augmented, program.seed)


def _without_mask(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield {"inputs": batch["inputs"]}
