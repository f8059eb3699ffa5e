"""An experiment with its data on one layout: the pure functions of a run, and the shapes they are compiled for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from fdl.checkpoint import weights
from fdl.checkpoint.transfer import Transfer, transfer
from fdl.data import pipeline
from fdl.distributed import layouts
from fdl.experiment import Experiment
from fdl.experiment.binding import bind_experiment
from fdl.files import user_path
from fdl.models.pytorch_names import from_pytorch
from fdl.optim import LearningRate
from fdl.train import finite, step
from fdl.train.compiled import Compiled
from fdl.types import Batch, Duration, UserError, count_examples, one_line

if TYPE_CHECKING:
    from fdl.train.frozen_features import Cut


@dataclasses.dataclass(frozen=True)
class Program:
    """What a run computes, each piece made when it is first asked for; `compiled` has the executables.

    Attributes:
        experiment: with everything that the data decides filled in.
        seed: decides the initial parameters, the order of examples and all randomness.
        total_steps: of the whole run.
        find_weights: the file that `init_from` names.
        cut: where features go into the model, in a program that trains on them (`fdl.train.frozen_features`); its data are
            features already.
    """

    experiment: Experiment
    data: pipeline.Prepared
    layout: layouts.Layout
    seed: int
    total_steps: int
    find_weights: Callable[[str], Path] = lambda name: user_path(name, "init_from")
    cut: Cut | None = None

    def steps_between(self, name: str) -> float:
        """Count the steps between two of the loop's "log"s, "eval"s, "save"s or "sample"s; 0: never."""
        return self.in_steps(getattr(self.experiment, f"{name}_every"))

    def in_steps(self, duration: Duration) -> float:
        """Convert a duration of this run to steps."""
        return duration.in_steps(self.experiment.batch_size, count_examples(self.data.splits.train), self.total_steps)

    def epochs(self, at: int) -> float:
        """Convert a step's number to epochs."""
        return at * self.experiment.batch_size / self.stream.num_examples

    # ---- pure functions ----------------------------------------------------------------------------------------------

    def draw_key(self) -> jax.Array:
        """Make the key of all randomness except the data's order."""
        return jax.random.key(self.seed)

    def init(self, key: jax.Array) -> step.State:
        """Draw the state at step 0 (without `initial` weights)."""
        optimizer = self.experiment.optimizer
        return step.init_state(
            key, self.prepared_row(), model=self.experiment.model, task=self.experiment.task, tx=self.optimizer[0],
            ema=optimizer.ema > 0,
        )  # fmt: skip

    def prepared_row(self) -> Batch:
        """Prepare one row as evaluation does, or as training does where only training has rows."""
        splits = self.data.splits
        rows = splits.evaluated
        row = jax.tree.map(lambda leaf: np.asarray(leaf[:1]), rows)
        if rows is splits.train:
            row = self.data.augment(row, step.example_draw(jax.random.key(0), jax.numpy.arange(1)))
        row = self.data.prepare(row, None)
        return row if self.cut is None else {**row, "inputs": self.cut.placeholders(1)}

    @functools.cached_property
    def optimizer(self) -> tuple[optax.GradientTransformationExtraArgs, LearningRate | None]:
        """The Optax transform of the run's length, and the learning rate by step where it is known."""
        return self.experiment.optimizer.build(self.total_steps)

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """Make one training step: (state, batch, key) -> (state, metrics), pure and not compiled."""
        experiment, (tx, learning_rate) = self.experiment, self.optimizer
        return self._resumed(functools.partial(
            step.train_step, tx=tx, learning_rate=learning_rate, trainable=experiment.optimizer.trainable,
            ema=experiment.optimizer.ema, augment=self.data.augment,
            loss_limit=experiment.loss_limit, skip_bad=experiment.on_bad_step == "skip",
            axis_name=self.layout.axis_name, **self._inference,
        ))  # fmt: skip

    @functools.cached_property
    def eval_step(self) -> Callable[..., Any]:
        """Score a padded batch: (variables, batch) -> weighted sums, pure and not compiled."""
        return self._resumed(functools.partial(step.eval_step, axis_name=self.layout.axis_name, **self._inference))

    @functools.cached_property
    def decode_step(self) -> Callable[..., Any]:
        """Decode a batch: (variables, batch) -> what the task makes of it, pure and not compiled."""
        return self._resumed(functools.partial(step.decode_step, **self._inference))

    @functools.cached_property
    def output_step(self) -> Callable[..., Any]:
        """Apply the model: (variables, batch) -> its outputs, pure and not compiled."""
        return self._resumed(functools.partial(step.output_step, **self._inference))

    def _resumed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let a step of the whole model begin at the cut, where there is one."""
        return function if self.cut is None else self.cut.resumed(function)

    @property
    def _inference(self) -> Mapping[str, Any]:
        experiment = self.experiment
        return {"model": experiment.model, "task": experiment.task, "prepare": self.data.prepare}

    # ---- shapes --------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def key_spec(self) -> jax.ShapeDtypeStruct:
        """The key's shape, for compiling where arrays cannot be placed."""
        return layouts.spec(jax.eval_shape(self.draw_key), self.layout.replicated)

    @functools.cached_property
    def state_spec(self) -> step.State:
        """The state's shapes, dtypes and shardings."""
        shapes = jax.eval_shape(self.init, self.key_spec)
        return layouts.spec(shapes, self.layout.placed(shapes))

    @property
    def variables_spec(self) -> Mapping[str, Any]:
        """Shapes, dtypes and shardings of what the model is applied with."""
        return {"params": self.state_spec.params, **self.state_spec.stats}

    @functools.cached_property
    def batch_spec(self) -> Batch:
        """Shapes and dtypes of a global batch's raw rows."""
        return pipeline.row_spec(self.data.splits.train, self.experiment.batch_size)

    @functools.cached_property
    def stream(self) -> pipeline.Stream:
        """The order of the training rows; this process feeds its own part of each batch."""
        num_examples = count_examples(self.data.splits.train)
        return pipeline.Stream(self.seed, self.experiment.batch_size, num_examples, *self.layout.feed)

    @functools.cached_property
    def check_names(self) -> list[str]:
        """What `Metrics.first_bad` counts."""
        return finite.check_names(self.state_spec.params)

    # ---- from files, and executables -----------------------------------------------------------------------------------

    @functools.cached_property
    def initial(self) -> Transfer | None:
        """What the experiment's `init_from` gives the model, None where it names no file.

        Raises:
            UserError: the file cannot be read, or nothing of it fits.
        """
        experiment = self.experiment
        if experiment.init_from is None:
            return None
        path = self.find_weights(experiment.init_from)
        source = f"init_from={path}"
        held = from_pytorch(experiment.model, weights.load(path), source)
        return transfer(self.variables_spec, held, source, experiment.init_map, experiment.init_strict)

    @functools.cached_property
    def compiled(self) -> Compiled:
        """The executables of this program."""
        return Compiled(self)


def build(
    experiment: Experiment, data: pipeline.Prepared, seed: int, layout: layouts.Layout,
    find_weights: Callable[[str], Path] | None = None,
) -> Program:  # fmt: skip
    """Make the program of a run.

    Args:
        find_weights: finds the file that `init_from` names; None: it is a path.

    Raises:
        UserError: a batch does not split over the devices, or the data do not fit the model or the task.
    """
    sizes = {"batch_size": experiment.batch_size, "eval_batch_size": experiment.eval_batch_size}
    layouts.check_divides(layout, **sizes)
    experiment = bind_experiment(experiment, data.splits.facts)
    total = Duration.parse(experiment.steps).in_steps(experiment.batch_size, count_examples(data.splits.train))
    program = Program(experiment, data, layout, seed, round(total))
    if find_weights is not None:
        program = dataclasses.replace(program, find_weights=find_weights)
    _check_fit(program)
    return program


def _check_fit(program: Program) -> None:
    """Let the task refuse data that do not fit the model's outputs, before anything is compiled."""

    task, model = program.experiment.task, program.experiment.model

    def outputs(variables: Any, key: jax.Array) -> Any:
        return task.apply(model, variables, program.prepared_row(), train=False, rngs={"params": key})

    try:
        shapes = jax.eval_shape(outputs, program.variables_spec, program.key_spec)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the model cannot be applied to the rows of {program.data.splits.name}: {type(error).__name__}: {one_line(error)}"
        ) from error
    task.check(shapes, program.data.splits)
