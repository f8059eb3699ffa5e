"""What the modes share: building a program from the options, and the lines that say what was found."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from fdl import environment
from fdl.checkpoint.find import find_weights
from fdl.cli.options import Options
from fdl.data import Request, pipeline
from fdl.data.formats.bad_inputs import BadInputs, write_bad_inputs
from fdl.data.prepared import Prepared, load_prepared_state
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment, settings, show
from fdl.report import describe
from fdl.rundir import config as run_config
from fdl.rundir import logs, workdir
from fdl.train.program import Program, build
from fdl.types import UserError, count_examples

Say = Callable[[str], None]


def say(line: str) -> None:
    """Print a line for the user."""
    print(line, flush=True)


def say_aside(line: str) -> None:
    """Print a line for the user on stderr, where standard output is meant for another program."""
    if processes.is_first():
        print(line, file=sys.stderr, flush=True)


def shown_settings(experiment: Experiment) -> dict[str, str]:
    """List every setting by its dotted name, as --show prints it."""
    return {path: show(value) for path, value in settings(experiment) if path != "name"}


def load(
    experiment: Experiment,
    options: Options,
    *,
    layout: Callable[[], layouts.Layout] | None = None,
    cached: bool = True,
    say: Say = say,
) -> Program:
    """Load the data and build the program, with a line that says what was loaded.

    Args:
        layout: chosen once the data are there; None: that of the options.
        cached: whether compiled programs are kept for the next start.
    """
    if cached:
        environment.enable_compile_cache()
    data = load_data(experiment, options)
    request = _request(options)
    program = build(
        experiment, data, options.seed, (layout or options.layout)(), lambda name: find_weights(name, request)
    )
    say_data(data, say)
    return program


def load_data(experiment: Experiment, options: Options) -> Prepared:
    """Load and prepare the experiment's data, the same in every process.

    Raises:
        UserError: they cannot be found or read; bad inputs are listed in a file.
    """
    request = _request(options)

    def read() -> Prepared:
        try:
            return pipeline.load(experiment.data, request, experiment.num_examples)
        except BadInputs as error:
            path = write_bad_inputs(error.rows, options.workdir or Path())
            raise UserError(f"{error} (all of them are listed in {path})") from error

    data = processes.first_then_others(read)
    processes.require_equal("the data", data.splits.sha256)
    return data


def _request(options: Options) -> Request:
    return Request(data_dir=options.data_folder(), offline=options.offline)


def say_data(data: Prepared, say: Say) -> None:
    """Print which data set it is, its source and size, and warnings."""
    splits = data.splits
    parts = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    sizes = [f"{count_examples(part):,} {name}" for name, part in parts if part is not None]
    leaks = [f"{count:,} {name} rows are also in training" for name, count in data.leaks.items() if count]
    notes = "; ".join([", ".join(sizes), *leaks, *splits.notes])
    say(f"data: {splits.name} ({splits.source}) from {splits.where}: {notes}")


def load_trained(experiment: Experiment, options: Options, *, rows: bool, say: Say = say) -> tuple[Path, Program]:
    """Find a trained run, and build its program: its own seed, class names, vocabulary and fitted statistics.

    Args:
        rows: whether the data set is needed; if not, the run directory has all that predictions and exports need.

    Raises:
        UserError: there is no such run, or the data are not those it was trained with.
    """
    environment.enable_compile_cache()
    path, config = trained_run(experiment, options)
    kept = load_prepared_state(path)
    data = kept.restore(experiment.data)
    if rows:
        found = load_data(experiment, options)
        if difference := kept.difference(found.splits):
            if not options.accept_changes:
                raise UserError(
                    f"--workdir={path} was trained with other data: {difference}; bring those back, or --accept_changes"
                )
            logging.warning("%s was trained with other data: %s; they are prepared as those were", path, difference)
        splits = dataclasses.replace(found.splits, facts=data.splits.facts)
        data = dataclasses.replace(found, splits=splits, augment=data.augment, prepare=data.prepare)
        say_data(data, say)
    request = _request(options)
    return path, build(experiment, data, config["seed"], options.layout(), lambda name: find_weights(name, request))


def trained_run(experiment: Experiment, options: Options) -> tuple[Path, dict[str, Any]]:
    """Find --workdir's run, or the experiment's newest, begun with these settings; and its config.json.

    Raises:
        UserError: there is none.
    """
    path = options.workdir or workdir.newest(experiment.name)
    config = run_config.read_config(path)
    if config is None:
        raise UserError(f"--workdir={path} holds no run; train first")
    run_config.check_settings(path, config, experiment.name, config["seed"], shown_settings(experiment))
    return path, config


def say_layers(program: Program) -> list[describe.Layer]:
    """Print the table of layers and its totals."""
    layers = describe.layers(program)
    rows = [
        (each.name, each.kind, " x ".join(map(str, each.shape)), f"{each.params:,}", f"{each.flops:,}")
        for each in layers
    ]
    logs.table(("layer", "kind", "output shape", "parameters", "FLOPs an example"), rows, range(3, 5))
    totals = describe.totals(program)
    say(
        f"{totals['parameters']:,} parameters ({totals['trainable']:,} trainable, {totals['frozen']:,} frozen), "
        f"{sum(layer.flops for layer in layers):,} FLOPs an example forward, state {totals['state_bytes'] / 2**20:.2f} MiB"
    )
    return layers
