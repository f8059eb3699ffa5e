"""--mode=study and --seeds: the runs of a study, trained where they are missing, and its page."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fdl import files
from fdl.checkpoint import weights
from fdl.cli import session
from fdl.cli.options import Options
from fdl.data.cuts import Cut
from fdl.distributed import layouts, processes
from fdl.experiment import Experiment, Found, make_experiment
from fdl.experiment.study import Study
from fdl.multirun import spawn, study_page
from fdl.multirun.study_page import Outcome, Run
from fdl.multirun.vmapped import train_together, why_not_together
from fdl.report import record, report, summary
from fdl.report.formatting import style_of
from fdl.rundir import config as run_config
from fdl.rundir import logs, workdir
from fdl.tasks.task import View
from fdl.train import stopping
from fdl.train.evaluation import view
from fdl.train.program import Program
from fdl.types import MAX_SEED, RunError, UserError, named_leaves, one_line


def study(file: Found, base: Experiment, options: Options) -> None:
    """Train every variant with every seed, each in its own directory under WORKDIR/runs; finished runs are kept.

    Small nets train all seeds at once in this process (`fdl.multirun.vmapped`), others one by one in separate processes.
    """
    if not processes.alone():
        raise UserError("a study runs in one process; start it without the others")
    declared = _declared(file, base, options)
    seeds = range(options.seed, options.seed + (options.seeds or declared.seeds))
    if seeds[-1] > MAX_SEED:
        raise UserError(
            f"--seed={options.seed}: {len(seeds)} seeds from it on go beyond {MAX_SEED}; give a smaller one"
        )
    variants = {
        label: make_experiment(file, [*options.overrides, *differences])
        for label, differences in declared.variants.items()
    }  # all of them, before anything is written
    chosen = options.workdir
    name = f"study of {base.name.removeprefix('study_')}"

    def check(before: Mapping[str, Any]) -> None:
        if before["experiment"] != name:
            raise UserError(
                f"--workdir={chosen} holds a run of {before['experiment']}, not a {name}; give another --workdir"
            )

    with stopping.asked_to_stop() as asked, contextlib.ExitStack() as stack:
        held = workdir.claim(stack, chosen, check) if chosen else None
        data = session.load(base, options, layout=_one_device).data
        path, style = chosen or workdir.create(base.name), style_of(base.task)
        config = {
            "experiment": name, "settings": session.shown_settings(base), "overrides": list(options.overrides),
            "seed": options.seed, "command": options.command,
            "variants": {label: list(differences) for label, differences in declared.variants.items()},
        }  # fmt: skip
        if held is None:
            workdir.begin(stack, path, config)
        else:
            files.write_json(path / "config.json", config)
        session.say(f"{name}: {len(variants)} variants x {len(seeds)} seeds, in {path}")
        outcomes = []
        began = time.monotonic()
        try:
            for label, experiment in variants.items():
                place = path / "runs" / _file_name(label, list(variants))
                outcome = _variant(label, declared, experiment, seeds, place, options, asked)
                session.say(study_page.line(outcome, declared, style))
                outcomes.append(outcome)
        except stopping.Interrupted as stop:
            stop.hint = f"finished runs are kept; the same command with --workdir={path} goes on from there"
            raise
        seconds = time.monotonic() - began
        found_all = study_page.summarise(base.name, summary.describe_data(data), declared, outcomes, seconds)
        files.write_json(path / "summary.json", found_all)
        study_page.print_table(declared, outcomes, style)
        if options.report:
            page = record.record_page(
                config, found_all, monitor=base.task.monitor, style=style, doc=file.doc,
                sections=study_page.panels(declared, outcomes, style),
            )  # fmt: skip
            session.say(f"report: {report.write_report(path, page, lambda: stopping.leave_if(asked))}")
    if not any(run.metrics for outcome in outcomes for run in outcome.runs):
        raise RunError(f"no run of {name} came to an end: {outcomes[0].runs[0].failed}")


def _declared(file: Found, base: Experiment, options: Options) -> Study:
    if options.folds and file.study is not None:
        raise UserError(f"--folds={options.folds}: {file.path} declares a study of its own; leave one of them out")
    if file.study is None:
        monitor = base.task.monitor
        split = "test" if options.test else "eval"
        names = (monitor, *base.task.styles, "loss")
        shown = tuple(dict.fromkeys(f"{split}/{name}" for name in names))[:4]
        curves = tuple(dict.fromkeys(("train/loss", f"eval/{monitor}")))
        return Study(
            _folds(base, options) or {base.name: ()},
            1 if options.folds else 5,
            shown,
            curves,
            repeats=bool(options.folds),
        )
    try:
        declared = file.study()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{file.path}: study() failed: {type(error).__name__}: {one_line(error)}; correct the file"
        ) from error
    if not isinstance(declared, Study) or not declared.variants:
        raise UserError(f"{file.path}: study() must return a Study with at least one variant; correct the file")
    return declared


def _folds(base: Experiment, options: Options) -> dict[str, tuple[str, ...]]:
    """Return a variant for each fold that --folds asks for."""
    rule = dataclasses.replace(Cut.parse(base.data.cut), fold=0, folds=0)
    count = options.folds or 0
    return {f"fold {number}": (f"data.cut={rule},fold={number}/{count}",) for number in range(1, count + 1)}


def _variant(
    label: str,
    declared: Study,
    experiment: Experiment,
    seeds: Sequence[int],
    place: Path,
    options: Options,
    asked: Callable[[], int],
) -> Outcome:
    """Collect one variant's runs: read if finished, else train. Where speed is compared, each runs alone."""
    differences = declared.variants[label]
    own = session.shown_settings(experiment)
    overrides, passed = [*options.overrides, *differences], options.passed_on

    def finished(seed: int) -> dict[str, Any] | None:
        where = place / f"seed-{seed}"
        config = run_config.read_config(where) if where.exists() else None
        if config:
            run_config.check_settings(where, config, experiment.name, seed, own)
        return spawn.finished(where, options.experiment, seed, overrides, passed, own)

    known = {seed: finished(seed) for seed in seeds}
    missing = [seed for seed, summary in known.items() if summary is None]
    if missing:
        program = _program(experiment, options)
        if "examples_per_second" not in declared.metrics and not why_not_together(program):
            known |= _together(program, missing, place, own, overrides, options, asked)
            missing = []
    for seed in missing:
        stopping.leave_if(asked)
        try:
            known[seed] = spawn.run(
                options.experiment, place / f"seed-{seed}", seed=seed, overrides=overrides, flags=passed, settings=own,
                asked=asked,
            )  # fmt: skip
        except RunError as error:
            known[seed] = {"metrics": {}, "failed": str(error)}
    runs = []
    for seed, found in known.items():
        assert found is not None, "every missing run was made above"
        rate = found.get("timing", {}).get("examples_per_second")
        metrics = found["metrics"] | ({"examples_per_second": rate} if rate else {})
        where = place / f"seed-{seed}"
        runs.append(
            Run(seed, metrics, logs.read_rows(where), found.get("failed", ""), where, found.get("baselines", {}))
        )
    return Outcome(label, tuple(differences), tuple(runs), functools.partial(_view, experiment, options, runs))


def _one_device() -> layouts.Layout:
    """Use one device: a net small enough to train several at once gains nothing from more."""
    return layouts.choose_layout("jit", jax.devices()[:1])


def _program(experiment: Experiment, options: Options) -> Program:
    return session.load(experiment, options, layout=_one_device, say=lambda line: None)


def _together(
    program: Program,
    seeds: Sequence[int],
    place: Path,
    own: Mapping[str, str],
    overrides: Sequence[str],
    options: Options,
    asked: Callable[[], int],
) -> dict[int, dict[str, Any]]:
    """Train the seeds together; return seed -> what its summary.json holds."""
    data, began = summary.describe_data(program.data), time.monotonic()
    config = run_config.make_config(
        experiment=program.experiment.name, settings=own, overrides=list(overrides), seed=program.seed,
        command=options.command, splits=program.data.splits, layout=program.layout,
        program_sha256=program.compiled.sha256, total_steps=program.total_steps,
    )  # fmt: skip
    baselines = summary.measure_baselines(program) if options.test else {}
    written = {}
    for found in train_together(program, seeds, lambda: stopping.leave_if(asked), options.test):
        where = place / f"seed-{found.seed}"
        seconds = time.monotonic() - began
        where.mkdir(parents=True, exist_ok=True)
        files.write_json(where / "config.json", config | {"seed": found.seed})
        with logs.writer(where, -1) as write:
            for row in found.rows:
                write(row)
        logs.write_csv(where, found.rows)
        if found.view:
            weights.save(where / "weights.safetensors", named_leaves(found.view.variables))
        written[found.seed] = {
            "experiment": program.experiment.name, "status": "failed" if found.failed else "complete",
            "failed": found.failed, "steps": found.steps, "best_step": found.best_step, "seed": found.seed,
            "data": data,
            "metrics": found.metrics, "baselines": baselines, "timing": {"training": seconds / len(seeds)},
            "together_with": list(seeds),
        }  # fmt: skip
        files.write_json(where / "summary.json", written[found.seed])
    return written


def _view(experiment: Experiment, options: Options, runs: Sequence[Run]) -> View | None:
    """Load the first seed's trained model, where only its weights were kept."""
    found = [run for run in runs if (run.path / "weights.safetensors").exists()]
    if not found:
        return None
    program = dataclasses.replace(_program(experiment, options), seed=found[0].seed)
    arrays = weights.load(found[0].path / "weights.safetensors")
    return view(program, jax.tree.map(jnp.asarray, weights.fit(program.variables_spec, arrays)))


def _file_name(label: str, labels: Sequence[str]) -> str:
    plain = [re.sub(r"[^A-Za-z0-9_.=+-]+", "-", each).strip("-.")[:60] or "variant" for each in labels]
    own = plain[labels.index(label)]
    return own if plain.count(own) == 1 else f"{own}-{labels.index(label)}"
