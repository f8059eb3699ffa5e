"""The workers of a sweep: each takes a trial, runs it to its end as a separate process, and takes the next."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fdl.cli import session
from fdl.experiment import Experiment, tuning
from fdl.files import try_lock
from fdl.multirun import spawn, trials
from fdl.multirun.trials import Trial, TrialStore
from fdl.rundir.logs import short
from fdl.rundir.rows import Row
from fdl.train import stopping
from fdl.types import RunError

_SAYING = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """What is swept, and how its runs are started.

    Attributes:
        name: as --experiment takes it.
        experiment: the same, with the user's own --set.
        overrides: those.
        settings: the experiment's, by dotted name.
        search: where to look.
        seed: every trial's, and what decides the values tried.
        flags: further flags of every run.
        command: the sweep's own command line.
        doc: the experiment's docstring.
    """

    name: str
    experiment: Experiment
    overrides: tuple[str, ...]
    settings: Mapping[str, str]
    search: tuning.Search
    seed: int = 0
    flags: tuple[str, ...] = ()
    command: str = ""
    doc: str = ""

    @property
    def monitor(self) -> str:
        return f"eval/{self.experiment.task.monitor}"

    def sets(self, trial: Trial) -> tuple[str, ...]:
        return (*self.overrides, *tuning.as_set_flags(trial.values))


def work(folder: Path, spec: SweepSpec, store: TrialStore, count: int, at_once: int, asked: Callable[[], int]) -> None:
    """Run trials, `at_once` at a time, until `count` of them are finished, those of other processes included.

    Raises:
        UserError: a trial refuses its input; the others have saved.
        Interrupted: `asked`; all have saved.
    """
    faults: list[BaseException] = []

    def stop() -> int:
        return asked() or (signal.SIGTERM if faults else 0)

    def work() -> None:
        own = tuning.own_values(spec.search, spec.experiment)
        try:
            while not stop():
                taken = trials.next_trial(store, count, own, functools.partial(_claim, folder))
                if taken:
                    try:
                        _drive(folder, spec, store, taken[0], stop)
                    finally:
                        os.close(taken[1])
                elif any(trial.state == "running" for trial in trials.trials(store)):
                    time.sleep(0.5)  # owned by another process, which may still leave it
                else:
                    return
        except BaseException as fault:  # raised below, in the main thread, which handles signals and answers the user
            faults.append(fault)

    threads = [threading.Thread(target=work, name=f"worker {i}") for i in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fault in faults:
        if not isinstance(fault, stopping.Interrupted):
            raise fault
    stopping.leave_if(asked)


def _claim(folder: Path, number: int) -> int | None:
    return try_lock(folder / "trials" / f".{number:04}.lock")


def _drive(folder: Path, spec: SweepSpec, store: TrialStore, trial: Trial, stop: Callable[[], int]) -> None:
    """Run a trial to its end, which may be pruning or a failure, and say so in a line."""
    path, reached = folder / "trials" / f"{trial.number:04}", 0

    def between(rows: list[Row]) -> bool:
        nonlocal reached
        for row in rows:
            if spec.monitor in row:
                percent = 100 * row["step"] // json.loads((path / "config.json").read_text())["total_steps"]
                if percent > reached:
                    reached = percent
                    if trials.report(store, trial.number, percent, row[spec.monitor]):
                        return True
        return False

    decided = ("--test", "--notest", "--report", "--noreport")
    own = (*(flag for flag in spec.flags if flag not in decided), "--notest", "--noreport")
    value, reason = None, ""
    try:
        done = spawn.run(
            spec.name, path, seed=spec.seed, overrides=spec.sets(trial), flags=own, asked=stop, between=between
        )
        if done["status"] == "stopped":
            trials.prune(store, trial.number)
        else:
            value = done["metrics"][spec.monitor]
            reason = "" if math.isfinite(value) else f"its {spec.monitor} is {value}"
    except RunError as error:
        reason = str(error)
    trials.finish(store, trial.number, None if reason else value, reason)  # does nothing where it was pruned
    _drop_checkpoints(folder, store)
    _tell(spec, store, trial.number)


def _drop_checkpoints(folder: Path, store: TrialStore) -> None:
    """Delete the checkpoints of every finished trial but the best: its settings are trained again anyway."""
    found = trials.trials(store)
    champion = trials.best(store, found)
    for trial in found:
        if trial.state != "running" and trial != champion:
            for checkpoint in (folder / "trials" / f"{trial.number:04}" / "checkpoints").glob("*"):
                shutil.rmtree(checkpoint, ignore_errors=True)


def _tell(spec: SweepSpec, store: TrialStore, number: int) -> None:
    found = trials.trials(store)
    trial, champion = found[number], trials.best(store, found)
    value = f"{spec.monitor} {'-' if trial.value is None else short(trial.value)}"
    how = {
        "complete": value,
        "pruned": f"pruned at {max(trial.reported, default=0)} % with {value}",
        "failed": f"failed: {trial.reason}",
    }
    so_far = f"best {short(champion.value or 0)} of trial {champion.number}" if champion else "none complete so far"
    with _SAYING:
        session.say(f"trial {number}: {how[trial.state]} ({so_far})  {'  '.join(tuning.as_set_flags(trial.values))}")
