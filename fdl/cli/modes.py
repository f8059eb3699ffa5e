"""What `--mode` can be: each a function of the experiment and the flags, from data to the files it leaves."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from fdl import files
from fdl.checkpoint import weights
from fdl.cli import session
from fdl.data.formats.bad_inputs import write_bad_inputs
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment, Found
from fdl.inspect import chips, plan, profiling, replay
from fdl.report import describe, record, report, summary
from fdl.rundir import logs, workdir
from fdl.train import loop as loop
from fdl.train import stopping
from fdl.train.evaluation import evaluate, view
from fdl.train.flops import step_flops
from fdl.train.program import Program
from fdl.train.step import State
from fdl.types import UserError, named_leaves

FLAGS = flags.FLAGS


def train(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=train: begin a run, or go on with the one in --workdir, to its report."""
    chosen = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else None
    processes.check_same("the settings", json.dumps([experiment.name, FLAGS.seed, str(chosen), settings]))
    before = processes.from_first(lambda: workdir.read_config(chosen) if chosen else None)
    profiled = profiling.parse(FLAGS.profile) if FLAGS.profile else None
    if chosen and before:
        workdir.check_same(chosen, before, experiment.name, FLAGS.seed, settings)
    with stopping.asked_to_stop() as local, contextlib.ExitStack() as stack:
        program = session.load(experiment)
        layers = session.tell_layers(program)
        compiled = _compile(program)  # before anything is written, as all that may fail
        if not before:
            _ = program.initial
        asked = processes.agreed(local)
        stopping.leave_if(asked)
        config = summary.config(program, settings, FLAGS.set, session.command())

        def claim() -> str:
            path = chosen or workdir.create(experiment.name)
            stack.enter_context(workdir.lock(path))
            files.write_json(path / "config.json", workdir.continued(path, config, FLAGS.accept_changes))
            if skipped := program.data.splits.skipped:
                write_bad_inputs(skipped, path)
            return str(path)

        path = Path(processes.from_first(claim))
        processes.check_shared(path)
        if FLAGS.dump_hlo and processes.is_first():
            for written in profiling.dump(program, path / "hlo"):
                session.say(f"wrote {written}")
        try:
            _train_in(path, program, found.doc, layers, compiled, profiled, asked, local)
        except stopping.Interrupted as stop:
            stop.hint = f"saved; the same command with --workdir={path} goes on from there"
            raise


def _train_in(
    path: Path,
    program: Program,
    doc: str,
    layers: list[describe.Layer],
    compiled: float,
    profiled: tuple[int, int] | None,
    asked: Callable[[], int],
    local: Callable[[], int],
) -> None:
    experiment = program.experiment
    timing: dict[str, float | None] = {"compile": compiled, "to_first_step": None}

    def first_step() -> None:
        timing["to_first_step"] = session.since_process_start()

    baselines = summary.measure_baselines(program) if FLAGS.test else {}
    stopped: stopping.Interrupted | None = None
    with processes.present(path) as missing, stopping.watched(FLAGS.watchdog, missing) as alive:

        def between() -> None:
            alive()
            stopping.leave_if(asked)

        try:
            with profiling.traced(profiled, path / "profile") as about_to:
                progress = loop.train(program, path, loop.Hooks(session.say, asked, first_step, about_to, alive))
            rows = logs.read_rows(path)
            found, trained = summary.summarise(
                program, path, progress, between, test=FLAGS.test, history=rows, baselines=baselines
            )
        except stopping.Interrupted as interrupted:
            stopped = interrupted  # raised below: this process leaves with a goodbye to the others
    if stopped:
        if processes.is_first():
            logs.write_csv(path, logs.read_rows(path))
        raise stopped
    if not processes.is_first():
        return
    logs.write_csv(path, rows)
    found["timing"] |= timing | {"total": session.since_process_start()}
    files.write_json(path / "summary.json", found)
    _say_result(experiment, found)
    if not FLAGS.test:
        return
    config = workdir.read_config(path) or {}
    page = record.run_page(config, found, trained, experiment.task, history=rows, layers=layers, doc=doc)
    print(f"report: {report.write_report(path, page, lambda: stopping.leave_if(local))}")


def score(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=eval: a trained run's metrics on the test split, as JSON."""
    _, program, state = _trained(experiment, settings)
    metrics = evaluate(program, state.variables, program.data.splits.evaluated)
    print(json.dumps({f"test/{name}": value for name, value in metrics.items()}))


def predict(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=predict: what a trained run says of the user's own input."""
    if not FLAGS.input:
        raise UserError("--mode=predict needs --input: a file, a folder, or for a language model a prompt")
    path, program, state = _trained(experiment, settings)
    out = Path(FLAGS.output).expanduser() if FLAGS.output else path / "predictions"
    trained = view(program, state.variables)
    for written in experiment.task.predict(trained, FLAGS.input, out) if processes.is_first() else []:
        print(f"wrote {written}")


def export(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=export: the best checkpoint's parameters and statistics as .safetensors or .npz, for any framework."""
    path, _, state = _trained(experiment, settings)
    arrays = named_leaves(processes.to_host(state.variables))
    if processes.is_first():
        out = weights.save(Path(FLAGS.output).expanduser() if FLAGS.output else path / "weights.safetensors", arrays)
        print(f"wrote {out}: {len(arrays)} arrays")


def examine(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=replay: the run's last bad step, leaf by leaf."""
    path = session.trained_run(experiment, settings)
    replay.newest_record(path)
    seen = replay.replay(session.load(experiment), path)
    session.say(f"step {seen.step}, made again from step {seen.since}: {seen.fault}")
    rows = [(each.name, f"{each.bad:,}", f"{each.size:,}", f"{each.largest:.4g}") for each in seen.arrays]
    logs.table(("array", "not finite", "of", "largest magnitude"), rows, range(1, 4))
    session.say("the examples with the worst loss, by their row in the training split:")
    session.say("  ".join(f"{row}: {loss:.4g}" for row, loss in seen.examples))


def check_gradients(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=check_gradients: the training step's gradient beside finite differences of its loss."""
    from fdl.inspect import gradients

    gradients.show(gradients.check(session.load(experiment)), session.say)


def planned(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--mode=plan: the training step compiled for devices that are not here."""
    if not FLAGS.topology:
        raise UserError("--mode=plan needs --topology, such as v5e-8, v5e:2x4, v2-8 or cpu:8")
    devices = chips.devices(FLAGS.topology)
    program = session.load(experiment, lambda: layouts.choose_layout(FLAGS.parallel, devices, FLAGS.mesh), cached=False)
    made = plan.plan(program, FLAGS.topology)
    plan.show(made, session.say)
    if made.chip and made.fits:
        session.say("looking for the largest batch that fits; compiling for it may take minutes")
        plan.show_largest(*plan.largest_batch(program, made), session.say)


def dry_run(found: Found, experiment: Experiment, settings: Mapping[str, str]) -> None:
    """--dry_run: what would be trained, compiled but not run."""
    program = session.load(experiment)
    session.tell_layers(program)
    memory = program.compiled.train_step.memory_analysis()
    mib = {kind: getattr(memory, f"{kind}_size_in_bytes") / 2**20 for kind in ("argument", "temp")}
    print(
        f"one training step of {program.experiment.batch_size}: {step_flops(program):,} FLOPs, "
        f"{mib['argument']:.1f} MiB arguments, {mib['temp']:.1f} MiB temporaries; {program.total_steps:,} steps in all"
    )


def _trained(experiment: Experiment, settings: Mapping[str, str]) -> tuple[Path, Program, State]:
    """--workdir's run, or the newest of the experiment: its directory, and its best checkpoint."""
    path = session.trained_run(experiment, settings)
    program = session.load(experiment)
    state, best = loop.restore_best(program, path / "checkpoints")
    session.say(f"run: {path}, step {best}")
    return path, program, state


def _compile(program: Program) -> float:
    """Seconds that compiling (or fetching from the cache) the training and the evaluation step took."""
    began = time.monotonic()
    _ = program.compiled.executable, program.compiled.eval_step
    return time.monotonic() - began


def _say_result(experiment: Experiment, found: Mapping[str, Any]) -> None:
    split = "test" if FLAGS.test else "eval"
    monitor = f"{split}/{experiment.task.monitor}"
    if monitor not in found["metrics"]:
        return
    rivals = "  ".join(f"{name} {logs.short(m[monitor])}" for name, m in found["baselines"].items() if monitor in m)
    standin = found["data"]["name"].endswith("standin")
    note = "  (on a stand-in: these figures say nothing about the real data set)" if standin else ""
    others = {k: v for k, v in found["metrics"].items() if k.startswith(f"{split}/") and k != monitor}
    rest = "  ".join(f"{k} {logs.short(v)}" for k, v in others.items())
    session.say(f"{monitor} {logs.short(found['metrics'][monitor])}  ({rivals})  {rest}{note}")
