"""The executables of a program on its layout: compiled once, ahead of time, and called by the loop."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl import scratch
from fdl.data import pipeline
from fdl.distributed import layouts, lowering, processes
from fdl.train import resident, step
from fdl.train.schedule import MAX_STEPS_PER_CALL, Call
from fdl.train.tracing import step_flops
from fdl.types import Arrays, Batch, UserError, take

if TYPE_CHECKING:
    from fdl.train.program import Program


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiled functions of a run, each made when it is first asked for.

    A training step is called in one of two ways, chosen once: `train_step` on a batch that the host feeds, or
    `train_many` on rows that are kept on the device (`resident_rows`).
    """

    program: Program

    @functools.cached_property
    def key(self) -> jax.Array:
        """The run's key, on every device."""
        return jax.jit(self.program.draw_key, out_shardings=self.program.layout.replicated)()

    def initial_state(self) -> step.State:
        """Make the state at step 0, with `initial` weights where there are any."""
        program = self.program
        state = lowering.compile_init(program.init, self.key, program.state_spec)
        if program.initial is None:
            return state

        def put(leaf: object, spec: object) -> Any:
            return layouts.place(leaf, spec) if isinstance(leaf, np.ndarray) else leaf  # a newly drawn one is placed

        filled = program.initial.fill({"params": state.params, **state.stats})
        found = jax.tree.map(put, filled, program.variables_spec)
        params, stats = found["params"], {name: found[name] for name in state.stats}
        shardings = jax.tree.map(lambda leaf: leaf.sharding, program.state_spec.opt_state)
        # Built from the loaded weights: some optimizers keep a copy of the parameters in their state.
        opt_state = jax.jit(program.optimizer[0].init, out_shardings=shardings)(params)
        # A copy: the state is donated, and two leaves that share a buffer cannot both be.
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, stats=stats, opt_state=opt_state, ema=ema)

    # ---- training ------------------------------------------------------------------------------------------------------

    def batches(self, start: int) -> Iterator[Batch]:
        """Feed the batches of the steps after `start`; none where the rows are on the device."""
        program = self.program
        if self.resident_rows is not None:
            return iter(())
        return pipeline.feed(
            program.experiment.data.feed, program.data.splits.train, program.stream, start, program.total_steps
        )

    def run_steps(
        self, state: step.State, call: Call, batches: Iterator[Batch]
    ) -> tuple[step.State, step.Metrics | None]:
        """Dispatch a call; return the state after it and its metrics (leaves [steps], or scalars of one step).

        Args:
            state: after step `call.first` - 1; donated.
            batches: the batches from step `call.first` on; not touched where the rows are on the device.

        Returns:
            The metrics are None for an excluded step, whose batch is skipped.
        """
        if call.excluded:
            next(batches, None)  # keeps a feed in step with the step numbers; without one there is nothing to skip
            return _count_step(state), None
        layout = self.program.layout
        if self.resident_rows is not None:
            order = resident.rows_of_call(self.program.stream, call.first - 1, call.count)
            rows = layouts.shard({"rows": order}, layout)  # cut like a fed batch: each device has its part's rows
            return self.train_many(state, rows, (self.key, self.resident_rows, np.int32(call.count)))
        batch = layouts.shard(next(batches), layout)
        if jax.default_backend() == "cpu" and layout.num_devices == 1:
            # Do not dispatch ahead on a CPU: the temporaries of two steps would be in memory at once. Little is lost: the
            # batch is ready by then, and the last step's metrics are read while this step computes.
            jax.block_until_ready(state)
        return self.train_step(state, batch, self.key)

    @functools.cached_property
    def train_step(self) -> jax.stages.Compiled:
        """(state, batch, key) -> (state, metrics); the state is donated."""
        return self.lowered_step.compile()

    @functools.cached_property
    def lowered_step(self) -> jax.stages.Lowered:
        """The training step as the compiler receives it."""
        program = self.program
        return lowering.lower_train(
            program.train_step, program.state_spec, program.batch_spec, program.key_spec, program.layout
        )

    @functools.cached_property
    def train_many(self) -> jax.stages.Compiled:
        """(state, rows, (key, resident_rows, count)) -> (state, metrics): many steps (see `resident.many_steps`)."""
        return self.lowered_many.compile()

    @functools.cached_property
    def lowered_many(self) -> jax.stages.Lowered:
        """The loop of many steps as the compiler receives it."""
        program, replicated = self.program, self.program.layout.replicated
        rows = jax.ShapeDtypeStruct((program.experiment.batch_size, MAX_STEPS_PER_CALL), np.int32)
        count = layouts.spec(jax.ShapeDtypeStruct((), np.int32), replicated)
        fixed = program.key_spec, layouts.spec(self.resident_rows, replicated), count
        looped = resident.many_steps(program.train_step)
        return lowering.lower_train(looped, program.state_spec, {"rows": rows}, fixed, program.layout)

    @functools.cached_property
    def resident_rows(self) -> Arrays | None:
        """The training rows, whole on every device, where they are kept there (`Data.resident`); else None.

        Raises:
            UserError: it was asked for and cannot be.
        """
        asked, rows = self.program.experiment.data.resident, self.program.data.splits.train
        can = processes.alone() and resident.in_memory(rows)
        if asked and not can:
            raise UserError("data.resident=true needs plain arrays and a single process; leave it out")
        if not can or not (self._should_loop() if asked is None else asked):
            return None
        return jax.device_put(rows, self.program.layout.replicated)

    def _should_loop(self) -> bool:
        """Return whether many steps per call pay off: on accelerators where the rows fit, on a CPU for short steps."""
        data, layout = self.program.experiment.data, self.program.layout
        if data.feed != "auto" or not resident.is_small(self.program.data.splits.train):
            return False
        if jax.default_backend() != "cpu":
            return True
        return layout.num_devices == 1 and not self.why_not_looped

    @functools.cached_property
    def why_not_looped(self) -> str:
        """Why a CPU should not make many steps in one call; "" where it may."""
        return resident.why_not_looped(self.lowered_step, lambda: step_flops(self.program))

    @property
    def executable(self) -> jax.stages.Compiled:
        """The training executable that the loop calls."""
        return self.train_step if self.resident_rows is None else self.train_many

    @property
    def lowered(self) -> jax.stages.Lowered:
        """That executable as the compiler receives it."""
        return self.lowered_step if self.resident_rows is None else self.lowered_many

    @functools.cached_property
    def sha256(self) -> str:
        """Digest the training step as the compiler receives it: all code and constants that decide what it computes."""
        text = self.lowered.as_text()
        if "callback" in text:  # the program's text does not hold NumPy code that it calls back into
            text += "".join(path.read_text() for path in sorted(Path(scratch.__file__).parent.glob("*.py")))
        return hashlib.sha256(text.encode()).hexdigest()

    # ---- evaluation ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def eval_step(self) -> jax.stages.Compiled:
        """(variables, batch) -> weighted sums, for padded batches of `eval_batch_size` rows."""
        program = self.program
        row = take(program.data.splits.evaluated, slice(0, 1))  # any row: only shapes and dtypes are compiled for
        batch = next(pipeline.padded_batches(row, program.experiment.eval_batch_size))
        return lowering.compile_eval(program.eval_step, program.variables_spec, batch, program.layout)

    @functools.cached_property
    def decode_step(self) -> jax.stages.Wrapped:
        """(variables, batch) -> what the task makes of a batch, on the devices of this process; any batch size."""
        return jax.jit(self.program.decode_step)

    @functools.cached_property
    def output_step(self) -> jax.stages.Wrapped:
        """(variables, batch) -> the model's outputs, on the devices of this process; any batch size."""
        return jax.jit(self.program.output_step)


@jax.jit
def _count_step(state: step.State) -> step.State:
    return dataclasses.replace(state, step=state.step + 1)
