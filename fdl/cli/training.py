"""One training run from its options to its report, for --mode=train and for Python."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdl import environment, files
from fdl.cli import checks, session
from fdl.cli.options import Options
from fdl.data.formats.bad_inputs import write_bad_inputs
from fdl.data.prepared import save_prepared
from fdl.distributed import presence, processes
from fdl.experiment import Experiment, override
from fdl.inspect import profiling
from fdl.report import describe, record, report, summary
from fdl.report.formatting import number
from fdl.rundir import config as run_config
from fdl.rundir import logs, workdir
from fdl.rundir.rows import Row
from fdl.tasks.task import Task, View
from fdl.train import frozen_features, loop, stopping
from fdl.train.program import Program, build
from fdl.train.restore import restore


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that came to its end.

    Attributes:
        path: its directory.
        summary: what summary.json holds.
        history: the rows of metrics.jsonl.
        view: the model of its best checkpoint.
    """

    path: Path
    program: Program
    summary: Mapping[str, Any]
    history: Sequence[Row]
    view: View


def train_run(experiment: Experiment, options: Options, doc: str = "") -> Trained:
    """Begin a run, or resume the one in `options.workdir`, up to its report.

    Args:
        doc: what the report says of the experiment.

    Raises:
        UserError: the input does not fit; nothing was written.
        RunError: the run failed; what it had saved is kept.
        Interrupted: asked to stop, and saved.
    """
    chosen, settings = options.workdir, session.shown_settings(experiment)
    processes.require_equal("the settings", json.dumps([experiment.name, options.seed, str(chosen), settings]))
    profiled = profiling.parse(options.profile) if options.profile else None
    with stopping.asked_to_stop() as local, contextlib.ExitStack() as stack:
        before = processes.from_first(lambda: _claim(stack, experiment, options, settings) if chosen else None)
        program = session.load(experiment, options)
        layers = session.say_layers(program)
        if processes.is_first():
            checks.warn_of_early_stopping(experiment, program.data.splits)
            checks.warn_of_batch_norm(experiment, layers)
        if not before and program.initial:
            session.say(str(program.initial))
        asked = processes.agreed(local)
        trainer = _training_program(program, chosen if before else None, lambda: stopping.leave_if(asked))
        compile_seconds = _compile(trainer)  # before anything is written, because all of it may fail
        processes.require_equal("the program", trainer.compiled.sha256)
        stopping.leave_if(asked)
        path = Path(processes.from_first(lambda: str(_begin(stack, experiment, program, trainer, options, before))))
        processes.check_shared(path)
        if options.dump_hlo and processes.is_first():
            for written in profiling.dump(trainer, path / "hlo"):
                session.say(f"wrote {written}")
        try:
            trained = _train_in(path, program, trainer, options, profiled, compile_seconds, asked)
            if processes.is_first():
                _finish(trained, options, doc, layers, local)
            return trained
        except stopping.Interrupted as stop:
            stop.hint = f"saved; the same command with --workdir={path} goes on from there"
            raise


def _training_program(program: Program, begun: Path | None, between: Callable[[], None]) -> Program:
    """Return the program that trains, and say where its features are, if it has any.

    Args:
        begun: the directory of a run that is resumed.
    """

    def variables() -> Mapping[str, Any]:
        state = program.compiled.initial_state() if begun is None else restore(program, begun / "checkpoints")[0]
        return {"params": state.params, **state.stats}

    trainer, line = frozen_features.training_program(program, variables, between)
    if line and processes.is_first():
        session.say(line)
    return trainer


def _claim(
    stack: contextlib.ExitStack, experiment: Experiment, options: Options, settings: Mapping[str, str]
) -> dict[str, Any] | None:
    path = options.workdir
    assert path is not None, "a run without --workdir is a new one"
    return workdir.claim(
        stack, path, lambda before: run_config.check_settings(path, before, experiment.name, options.seed, settings)
    )


def _begin(
    stack: contextlib.ExitStack,
    experiment: Experiment,
    program: Program,
    trainer: Program,
    options: Options,
    before: Mapping[str, object] | None,
) -> Path:
    """Write the config.json of a new or resumed run, and return its directory.

    Args:
        trainer: the program that trains; `program` itself unless features are cached.
    """
    settings = session.shown_settings(experiment)
    config = run_config.make_config(
        experiment=experiment.name, settings=settings, overrides=list(options.overrides), seed=options.seed,
        command=options.command, splits=program.data.splits, layout=program.layout,
        program_sha256=trainer.compiled.sha256, total_steps=program.total_steps,
    )  # fmt: skip
    path = options.workdir or workdir.create(experiment.name)
    if before is None:
        workdir.begin(stack, path, config)
    else:
        checks.check_length(program, path, before)
        held = run_config.resume(
            path, before, config, options.accept_changes, lambda: _code_as_begun(experiment, program, trainer, before)
        )
        files.write_json(path / "config.json", held)
    save_prepared(path, program.data)
    if program.data.splits.skipped:
        write_bad_inputs(program.data.splits.skipped, path)
    return path


def _code_as_begun(experiment: Experiment, program: Program, trainer: Program, before: Mapping[str, Any]) -> str:
    """Digest this code's training step under the run's earlier settings, so that only a change of code can differ."""
    settings = session.shown_settings(experiment)
    changed = [
        f"{name}={value}"
        for name, value in before["settings"].items()
        if name in run_config.RESUME_MAY_CHANGE and settings.get(name, value) != value
    ]
    if not changed:
        return trainer.compiled.sha256
    earlier = build(override(experiment, *changed), program.data, program.seed, program.layout)
    return dataclasses.replace(earlier, data=trainer.data, cut=trainer.cut).compiled.sha256


def _train_in(
    path: Path,
    program: Program,
    trainer: Program,
    options: Options,
    profiled: tuple[int, int] | None,
    compile_seconds: float,
    asked: Callable[[], int],
) -> Trained:
    """Train, and evaluate the best checkpoint, under the watchdog."""
    timing: dict[str, float | None] = {"compile": compile_seconds, "to_first_step": None}

    def first_step() -> None:
        timing["to_first_step"] = environment.seconds_since_start()

    baselines = summary.measure_baselines(program, trainer) if options.test else {}
    stopped: stopping.Interrupted | None = None
    with presence.present(path) as missing, stopping.watched(options.watchdog, missing) as alive:

        def between() -> None:
            alive()
            stopping.leave_if(asked)

        try:
            with profiling.traced(profiled, path / "profile") as about_to:
                progress = loop.train(trainer, path, loop.Hooks(session.say, asked, first_step, about_to, alive))
            rows = logs.read_rows(path)
            found, view = summary.summarise(
                program, path, progress, between, test=options.test, history=rows, baselines=baselines
            )
        except stopping.Interrupted as interrupted:
            stopped = interrupted  # raised below, after the block: the others must not see this process as missing
    if stopped:
        if processes.is_first():
            logs.write_csv(path, logs.read_rows(path))
        raise stopped
    found["timing"] |= timing | {"total": environment.seconds_since_start()}
    return Trained(path, program, found, rows, view)


def _finish(
    trained: Trained, options: Options, doc: str, layers: list[describe.Layer], asked: Callable[[], int]
) -> None:
    """Write summary.json and the report, and print the result."""
    path, task, found = trained.path, trained.program.experiment.task, trained.summary
    logs.write_csv(path, trained.history)
    files.write_json(path / "summary.json", found)
    _say_result(task, "test" if options.test else "eval", found)
    if not options.report:
        return
    config = run_config.read_config(path) or {}
    page = record.run_page(
        config, found, trained.view, task, history=trained.history, layers=layers, doc=doc, test=options.test
    )
    session.say(f"report: {report.write_report(path, page, lambda: stopping.leave_if(asked))}")


def _compile(program: Program) -> float:
    """Compile (or fetch from the cache) the training and the evaluation step, and return the seconds it took."""
    began = time.monotonic()
    _ = program.compiled.executable, program.compiled.eval_step
    environment.return_freed_memory()  # or the first step's temporaries would come on top of the compiler's
    return time.monotonic() - began


def _say_result(task: Task, split: str, found: Mapping[str, Any]) -> None:
    """Print the quoted metric with the baselines, then the others."""
    name = f"{split}/{task.quoted_metric()}"
    if name not in found["metrics"]:
        return

    def shown(metric: str, value: float) -> str:
        return number(value, task.metric_style(metric))

    rivals = "  ".join(f"{rival} {shown(name, m[name])}" for rival, m in found["baselines"].items() if name in m)
    note = "(on a stand-in: these figures say nothing about the real data set)" if found["data"]["standin"] else ""
    others = {k: v for k, v in found["metrics"].items() if k.startswith(f"{split}/") and k != name}
    rest = "  ".join(f"{k} {shown(k, v)}" for k, v in others.items())
    parts = (f"{name} {shown(name, found['metrics'][name])}", f"({rivals})" if rivals else "", rest, note)
    session.say("  ".join(filter(None, parts)))
