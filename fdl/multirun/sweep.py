"""--mode=sweep: trials as separate processes, until there are enough; then the best again, with the test split."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fdl.cli import session
from fdl.cli.options import Options
from fdl.data import Request
from fdl.experiment import Experiment, Found, tuning
from fdl.files import try_lock, write_json
from fdl.multirun import sampling, spawn, sweep_panels, trials, workers
from fdl.multirun.trials import Trial, TrialStore
from fdl.multirun.workers import SweepSpec
from fdl.report import record, report
from fdl.report.formatting import style_of
from fdl.rundir import logs, workdir
from fdl.rundir.config import differences
from fdl.rundir.logs import short
from fdl.train import stopping
from fdl.types import RunError, UserError


def sweep(file: Found, experiment: Experiment, options: Options) -> None:
    """Begin a sweep (--mode=sweep), resume the one in --workdir, or help another process with it."""
    search = tuning.load_search(file.search, experiment, file.path, options.overrides)
    sampling.import_optuna()
    check_validation(experiment, Request(data_dir=options.data_folder(), offline=options.offline))
    spec = SweepSpec(
        name=options.experiment, experiment=experiment, overrides=options.overrides,
        settings=session.shown_settings(experiment), search=search, seed=options.seed, flags=options.passed_on,
        command=options.command, doc=file.doc,
    )  # fmt: skip
    folder = options.workdir or workdir.create(f"{experiment.name}-sweep")
    with stopping.asked_to_stop() as asked:
        try:
            tune(folder, spec, options.trials or search.trials, options.workers, asked)
        except stopping.Interrupted as stop:
            stop.hint = f"its trials are saved; the same command with --workdir={folder} goes on from there"
            raise


def check_validation(experiment: Experiment, request: Request) -> None:
    """Check that there is a validation split, by which a sweep chooses.

    Raises:
        UserError: there is none.
    """
    data = experiment.data
    if data.validation:
        return
    splits = data.read(request)
    if splits.validation is None:
        raise UserError(
            f"{experiment.name} has no validation split for a sweep to choose by; cut one from training, such as "
            "--set data.validation=1000"
        )


def tune(folder: Path, spec: SweepSpec, count: int, at_once: int, asked: Callable[[], int]) -> dict[str, Any]:
    """Work on the sweep in `folder` until it has `count` finished trials; return its final summary.json.

    Any number of processes may do so at once.

    Raises:
        UserError: the folder holds something else, or a trial refuses its input.
        RunError: no trial was completed, or the last run failed.
        Interrupted: `asked`; the trials have saved.
    """
    begin(folder, spec)
    store = trials.open_store(folder, sampling.SearchRules(spec.search, spec.experiment.task.better, spec.seed))
    done = sum(trial.state != "running" for trial in trials.trials(store))
    session.say(f"sweep: {folder}, {done} of {count} trials done, {at_once} at a time")
    workers.work(folder, spec, store, count, at_once, asked)
    return _finish(folder, spec, store, asked)


def begin(folder: Path, spec: SweepSpec) -> None:
    """Make the sweep's directory, or check that it is this sweep's.

    Raises:
        UserError: it holds something else, or a sweep of other settings.
    """
    rules: dict[str, Any] = {"space": {name: str(where) for name, where in spec.search.space.items()}}
    rules |= {"sampler": spec.search.sampler, "pruner": spec.search.pruner}
    now = {"experiment": spec.experiment.name, "seed": str(spec.seed), **spec.settings, **rules}
    path = folder / "sweep.json"
    try:
        others = [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.exists() else []
        if others and not path.exists():
            raise UserError(f"--workdir={folder} is no sweep of fdl and not empty (it holds {others[0]}); give another")
        folder.mkdir(parents=True, exist_ok=True)
        with trials.hold(folder):
            if not path.exists():
                write_json(path, {"settings": now, "command": spec.command})
            (folder / "trials").mkdir(exist_ok=True)
            before = json.loads(path.read_text())["settings"]
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be used: {error.strerror}; give another") from error
    if differing := differences(before, now):
        raise UserError(
            f"--workdir={folder} holds another sweep: {'; '.join(differing)}; set them back or give another --workdir"
        )


def _finish(folder: Path, spec: SweepSpec, store: TrialStore, asked: Callable[[], int]) -> dict[str, Any]:
    """Train with the best settings again, evaluate on the test split, and write the results; one process at a time."""
    while (handle := try_lock(folder / ".finish.lock")) is None:
        stopping.leave_if(asked)
        time.sleep(0.2)
    try:
        found = trials.trials(store)
        champion = trials.best(store, found)
        if champion is None:
            raise RunError(f"no trial came to its end; the last: {found[-1].reason or found[-1].state}")
        counts = Counter(trial.state for trial in found)
        written = folder / "summary.json"
        summary = logs.read_summary(folder) if written.exists() else {}
        if summary.get("trials") != counts:
            summary = _refit(folder, spec, store, champion, asked) | {"trials": counts}
            _write_page(folder, spec, store, found, summary)
            write_json(written, summary)
    finally:
        os.close(handle)
    figure = f"test/{spec.experiment.task.monitor}"
    if figure in summary["metrics"]:
        rivals = "  ".join(f"{name} {short(m[figure])}" for name, m in summary["baselines"].items() if figure in m)
        session.say(
            f"{figure} {short(summary['metrics'][figure])}  ({rivals})  with the settings of trial {champion.number}"
        )
    session.say(f"the best again: {summary['best']['command']}")
    session.say(f"report: {folder / 'report.html'}")
    return dict(summary)


def _refit(
    folder: Path, spec: SweepSpec, store: TrialStore, champion: Trial, asked: Callable[[], int]
) -> dict[str, Any]:
    """Train in `folder`/best and summarise it. A run of an earlier best is moved aside."""
    path, sets = folder / "best", spec.sets(champion)
    spawn.wait_until_free(path, asked)
    config = path / "config.json"
    if config.exists() and json.loads(config.read_text())["overrides"] != list(sets):
        path.rename(next(p for i in itertools.count(1) if not (p := folder / f"best.{i}").exists()))
    session.say(f"trial {champion.number} is the best: its settings once more, with the test split, in {path}")
    done = spawn.run(spec.name, path, seed=spec.seed, overrides=sets, flags=spec.flags, asked=asked)
    command = [Path(sys.executable).name, "-m", *spawn.arguments(spec.name, spec.seed, sets, spec.flags)]
    return {
        "experiment": spec.experiment.name,
        "status": "complete",
        "seed": spec.seed,
        "monitor": spec.monitor,
        "best": {
            "trial": champion.number,
            "value": champion.value,
            "overrides": list(tuning.as_set_flags(champion.values)),
            "command": shlex.join(command),
        },
        **{name: done[name] for name in ("data", "metrics", "baselines", "devices", "state_sha256")},
    }


def _write_page(
    folder: Path, spec: SweepSpec, store: TrialStore, found: list[Trial], summary: Mapping[str, Any]
) -> None:
    config = json.loads((folder / "best" / "config.json").read_text())
    shares = functools.partial(trials.importances, store)
    page = record.record_page(
        config | {"command": spec.command}, summary, monitor=spec.experiment.task.monitor,
        style=style_of(spec.experiment.task), doc=spec.doc,
        sections=sweep_panels.panels(found, spec.search, store.rules.better, spec.monitor, summary["best"], shares),
    )  # fmt: skip
    report.write_report(folder, page)
