"""What `--mode` can be: each a function of the experiment and the flags, from data to the files it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from fdl import (
    checkpoint,
    chips,
    describe,
    environment,
    hosts,
    logs,
    parallel,
    plan,
    replay,
    report,
    stopping,
    summary,
    weights,
    workdir,
)
from fdl import train as loop
from fdl.data import Request, pipeline
from fdl.data.bad_inputs import BadInputs, write_bad_inputs
from fdl.experiment import Experiment
from fdl.program import Program, build, evaluate, view
from fdl.tasks.task import Panel
from fdl.types import UserError, count_examples, named_leaves

FLAGS = flags.FLAGS


def train(experiment: Experiment, doc: str, settings: Mapping[str, str]) -> None:
    """--mode=train: begin a run, or go on with the one in --workdir, to its report."""
    chosen = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else None
    hosts.check_same("the settings", json.dumps([experiment.name, FLAGS.seed, str(chosen), settings]))
    before = hosts.from_first(lambda: workdir.read_config(chosen) if chosen else None)
    if chosen and before:
        workdir.check_same(chosen, before, experiment.name, FLAGS.seed, settings)
    with stopping.asked_to_stop() as local, contextlib.ExitStack() as stack:
        program = load(experiment)
        layers = tell_layers(program)
        compiled = _compile(program)  # before anything is written, as all that may fail
        if not before:
            _ = program.initial
        asked = hosts.agreed(local)
        stopping.leave_if(asked)
        config = summary.config(program, settings, FLAGS.set, command())

        def claim() -> str:
            path = chosen or workdir.create(experiment.name)
            stack.enter_context(workdir.lock(path))
            checkpoint.write_json(path / "config.json", workdir.continued(path, config, FLAGS.accept_changes))
            if skipped := program.data.splits.info.get("skipped"):
                write_bad_inputs(skipped, path)
            return str(path)

        path = Path(hosts.from_first(claim))
        hosts.check_shared(path)
        try:
            _train_in(path, program, doc, layers, compiled, asked, local)
        except stopping.Interrupted as stop:
            stop.hint = f"saved; the same command with --workdir={path} goes on from there"
            raise


def _train_in(
    path: Path,
    program: Program,
    doc: str,
    layers: list[describe.Layer],
    compiled: float,
    asked: Callable[[], int],
    local: Callable[[], int],
) -> None:
    experiment = program.experiment
    timing: dict[str, float | None] = {"compile": compiled, "to_first_step": None}

    def first_step() -> None:
        timing["to_first_step"] = since_process_start()

    stopped: stopping.Interrupted | None = None
    with hosts.present(path) as missing, stopping.watched(FLAGS.watchdog, missing) as alive:

        def between() -> None:
            alive()
            stopping.leave_if(asked)

        try:
            progress = loop.train(program, path, loop.Calls(say, asked, first_step, alive))
            found, trained = summary.summarise(program, path, progress, between)
        except stopping.Interrupted as interrupted:
            stopped = interrupted  # raised below: this process leaves with a goodbye to the others
    if stopped:
        raise stopped
    if not hosts.is_first():
        return
    found["timing"] |= timing | {"total": since_process_start()}
    checkpoint.write_json(path / "summary.json", found)
    _say_result(experiment, found)
    page = report.write_report(
        path, doc=doc, config=workdir.read_config(path) or {}, history=logs.read_rows(path), summary=found,
        parameters=[dataclasses.asdict(layer) for layer in layers], panels=_until(local, experiment.task.panels(trained)),
        monitor=experiment.task.monitor,
    )  # fmt: skip
    print(f"report: {page}")


def _until(asked: Callable[[], int], panels: Iterable[Panel]) -> Iterator[Panel]:
    """The panels one by one, for drawing them takes longer than a run that is told to stop may wait."""
    for panel in panels:
        stopping.leave_if(asked)
        yield panel


def use(experiment: Experiment, doc: str, settings: Mapping[str, str]) -> None:
    """--mode=eval and --mode=predict: a trained run, looked at."""
    if FLAGS.mode == "predict" and not FLAGS.input:
        raise UserError("--mode=predict needs --input: a file, a folder, or for a language model a prompt")
    path = trained_run(experiment, settings)
    program = load(experiment)
    state, best = loop.restore_best(program, path / "checkpoints")
    say(f"run: {path}, step {best}")
    if FLAGS.mode == "eval":
        metrics = evaluate(program, state.variables, program.data.splits.test)
        print(json.dumps({f"test/{name}": value for name, value in metrics.items()}))
        return
    out = Path(FLAGS.output).expanduser() if FLAGS.output else path / "predictions"
    trained = view(program, state.variables)
    for written in experiment.task.predict(trained, FLAGS.input, out) if hosts.is_first() else []:
        print(f"wrote {written}")


def export(experiment: Experiment, doc: str, settings: Mapping[str, str]) -> None:
    """--mode=export: the best checkpoint's parameters and statistics as .safetensors or .npz, for any framework."""
    path = trained_run(experiment, settings)
    program = load(experiment)
    state, best = loop.restore_best(program, path / "checkpoints")
    arrays = named_leaves(hosts.to_host(state.variables))
    if hosts.is_first():
        out = weights.save(Path(FLAGS.output).expanduser() if FLAGS.output else path / "weights.safetensors", arrays)
        print(f"wrote {out}: {len(arrays)} arrays of step {best}")


def examine(experiment: Experiment, doc: str, settings: Mapping[str, str]) -> None:
    """--mode=replay: the run's last bad step, leaf by leaf."""
    from rich.console import Console
    from rich.table import Table

    path = trained_run(experiment, settings)
    replay.newest_record(path)
    found = replay.replay(load(experiment), path)
    say(f"step {found.step}, made again from step {found.since}: {found.fault}")
    table = Table("array", "not finite", "of", "largest magnitude", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for seen in found.arrays:
        table.add_row(seen.name, f"{seen.bad:,}", f"{seen.size:,}", f"{seen.largest:.4g}")
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
    say("the examples with the worst loss, by their row in the training split:")
    say("  ".join(f"{row}: {loss:.4g}" for row, loss in found.examples))


def planned(experiment: Experiment, doc: str, settings: Mapping[str, str]) -> None:
    """--mode=plan: the training step compiled for devices that are not here."""
    if not FLAGS.topology:
        raise UserError("--mode=plan needs --topology, such as v5e-8, v5e:2x4, v2-8 or cpu:8")
    devices = chips.devices(FLAGS.topology)
    program = load(experiment, lambda: parallel.choose_layout(FLAGS.parallel, devices, FLAGS.mesh), cached=False)
    found = plan.plan(program, FLAGS.topology)
    plan.show(found, say)
    if found.chip and found.fits:
        say("looking for the largest batch that fits; compiling for it may take minutes")
        plan.show_largest(*plan.largest_batch(program, found), say)


def dry_run(experiment: Experiment) -> None:
    """--dry_run: what would be trained, compiled but not run."""
    program = load(experiment)
    tell_layers(program)
    cost = program.train.cost_analysis() or {}
    memory = program.train.memory_analysis()
    mib = {kind: getattr(memory, f"{kind}_size_in_bytes") / 2**20 for kind in ("argument", "temp")}
    print(
        f"one training step of {program.experiment.batch_size}: {cost.get('flops', 0):,.0f} FLOPs, "
        f"{mib['argument']:.1f} MiB arguments, {mib['temp']:.1f} MiB temporaries; {program.total_steps:,} steps in all"
    )


# ---- what the modes share --------------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, flush=True)


def load(experiment: Experiment, layout: Callable[[], parallel.Layout] | None = None, cached: bool = True) -> Program:
    """The data and the program, with a line that says what was loaded; its compiled programs are kept where `cached`."""
    if cached:
        environment.enable_compile_cache()
    request = Request(data_dir=_data_dir(), offline=FLAGS.offline)

    def read() -> pipeline.Prepared:
        try:
            return pipeline.load(experiment.data, request, experiment.num_examples)
        except BadInputs as error:
            path = write_bad_inputs(error.rows, Path(FLAGS.workdir or ".").expanduser())
            raise UserError(f"{error} (all of them are listed in {path})") from error

    data = hosts.first_then_others(read)
    hosts.check_same("the data", data.splits.sha256)
    chosen = layout() if layout else parallel.choose_layout(FLAGS.parallel, mesh=FLAGS.mesh)
    program = build(experiment, data, FLAGS.seed, chosen)
    splits = data.splits
    parts = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    sizes = [f"{count_examples(part):,} {name}" for name, part in parts if part is not None]
    say(f"data: {splits.name} ({splits.source}) from {splits.where}: {', '.join(sizes)}")
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
    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "kind", "output shape", "parameters", "FLOPs an example", box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    layers = describe.layers(program)
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        table.add_row(layer.name, layer.kind, shape, f"{layer.params:,}", f"{layer.flops:,}")
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
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


def _compile(program: Program) -> float:
    """Seconds that compiling (or fetching from the cache) the training and the evaluation step took."""
    began = time.monotonic()
    for step in ("train", "evaluate"):
        getattr(program, step)
    return time.monotonic() - began


def _data_dir() -> Path | None:
    for name, value in (("--data_dir", FLAGS.data_dir), ("FDL_DATA_DIR", os.environ.get("FDL_DATA_DIR"))):
        if value:
            path = Path(value).expanduser()
            if not path.is_dir():
                raise UserError(f"{name}={value} is no folder; give one that holds data sets, or leave it out")
            return path
    return None


def _say_result(experiment: Experiment, found: Mapping[str, Any]) -> None:
    monitor = f"test/{experiment.task.monitor}"
    rivals = "  ".join(f"{name} {logs.short(m[monitor])}" for name, m in found["baselines"].items() if monitor in m)
    standin = found["data"]["name"].endswith("standin")
    note = "  (on a stand-in: these figures say nothing about the real data set)" if standin else ""
    others = {k: v for k, v in found["metrics"].items() if k.startswith("test/") and k != monitor}
    rest = "  ".join(f"{k} {logs.short(v)}" for k, v in others.items())
    say(f"{monitor} {logs.short(found['metrics'][monitor])}  ({rivals})  {rest}{note}")


_IMPORTED = time.monotonic()
