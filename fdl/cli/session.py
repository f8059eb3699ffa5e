"""What the modes share: from the flags to a program, and the lines that say what was found."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags

from fdl import environment
from fdl.data import Request, pipeline
from fdl.data.formats.bad_inputs import BadInputs, write_bad_inputs
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment
from fdl.report import describe
from fdl.rundir import logs, workdir
from fdl.train.program import Program, build
from fdl.types import UserError, count_examples

FLAGS = flags.FLAGS
_IMPORTED = time.monotonic()


def say(line: str) -> None:
    print(line, flush=True)


def load(
    experiment: Experiment,
    layout: Callable[[], layouts.Layout] | None = None,
    cached: bool = True,
    say: Callable[[str], None] = say,
) -> Program:
    """The data and the program, with a line that says what was loaded; its compiled programs are kept where `cached`."""
    if cached:
        environment.enable_compile_cache()
    request = Request(data_dir=data_dir(), offline=FLAGS.offline)

    def read() -> pipeline.Prepared:
        try:
            return pipeline.load(experiment.data, request, experiment.num_examples)
        except BadInputs as error:
            path = write_bad_inputs(error.rows, Path(FLAGS.workdir or ".").expanduser())
            raise UserError(f"{error} (all of them are listed in {path})") from error

    data = processes.first_then_others(read)
    processes.check_same("the data", data.splits.sha256)
    chosen = layout() if layout else layouts.choose_layout(FLAGS.parallel, mesh=FLAGS.mesh)
    program = build(experiment, data, FLAGS.seed, chosen)
    splits = data.splits
    parts = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    sizes = [f"{count_examples(part):,} {name}" for name, part in parts if part is not None]
    say(f"data: {splits.name} ({splits.source}) from {splits.where}: {'; '.join([', '.join(sizes), *splits.notes])}")
    return program


def trained_run(experiment: Experiment, settings: Mapping[str, str]) -> Path:
    """--workdir, or the newest run of the experiment, begun with these settings.

    Raises:
        UserError: there is none.
    """
    path = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else workdir.newest(experiment.name)
    config = workdir.read_config(path)
    if config is None:
        raise UserError(f"--workdir={path} holds no run; train first")
    workdir.check_same(path, config, experiment.name, int(config["seed"]), settings)
    return path


def tell_layers(program: Program) -> list[describe.Layer]:
    """The table of layers and its totals, printed."""
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


def command() -> str:
    """The command line, as it could be given again."""
    return shlex.join([Path(sys.executable).name, "-m", "fdl.main", *sys.argv[1:]])


def since_process_start() -> float:
    """Seconds since the kernel started this process (since this file was imported, where /proc is missing)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def data_dir() -> Path | None:
    for name, value in (("--data_dir", FLAGS.data_dir), ("FDL_DATA_DIR", os.environ.get("FDL_DATA_DIR"))):
        if value:
            path = Path(value).expanduser()
            if not path.is_dir():
                raise UserError(f"{name}={value} is no folder; give one that holds data sets, or leave it out")
            return path
    return None
