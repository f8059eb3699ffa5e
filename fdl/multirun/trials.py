"""The trials of a sweep on disk: what was tried and what came of it.

They are in an SQLite file (Optuna's RDBStorage; its dashboard reads it), each change one transaction: after a kill at any
instant it stands or it does not. Optuna's other file, the journal, may be left with half a line, which it then refuses to
read, or with a lock file that everybody waits half a minute for. Whoever reads or changes something holds a lock of the
kernel's, which ends with its process: threads and processes alike take turns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fdl.files import locked
from fdl.multirun import sampling
from fdl.multirun.sampling import Rules

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

T = TypeVar("T")
_VERDICT = "pruned"
"""The attribute of a trial that is to be pruned: it is written first, in one piece, and all that follows from it after."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One of the runs of a sweep.

    Attributes:
        number: from 0.
        state: how it stands.
        values: the setting's name -> number, or a choice's text.
        value: the monitored metric on the validation split; a pruned trial's is its last.
        reported: percent of the run -> that metric.
        seconds: from its first start to its end.
        reason: why it failed.
    """

    number: int
    state: Literal["running", "complete", "pruned", "failed"]
    values: Mapping[str, Any]
    value: float | None
    reported: Mapping[int, float]
    seconds: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The trials in `folder`, and the rules they follow."""

    folder: Path
    rules: Rules
    storage: Any = dataclasses.field(repr=False)
    study: int

    def read(self) -> list[FrozenTrial]:
        return list(self.storage.get_all_trials(self.study))


def open_ledger(folder: Path, rules: Rules) -> Ledger:
    """The ledger of the directory `folder`, which is there; its file is made whole or not at all.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = sampling.import_optuna()
    path, beside = folder / "trials.db", folder / ".trials.db.tmp"

    def storage_in(file: Path) -> Any:
        return optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}})

    with alone(folder):
        if not path.exists():
            beside.unlink(missing_ok=True)
            new = storage_in(beside)
            new.create_new_study([optuna.study.StudyDirection[f"{rules.better.upper()}IMIZE"]], sampling.STUDY)
            new.engine.dispose()
            os.replace(beside, path)
        storage = storage_in(path)
        return Ledger(folder, rules, storage, storage.get_study_id_from_name(sampling.STUDY))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One thread of one process at a time."""
    with locked(folder / ".trials.lock"):
        yield


def trials(ledger: Ledger) -> list[Trial]:
    """All of them, by number."""
    with alone(ledger.folder):
        return [_plain(found) for found in ledger.read()]


def _plain(found: FrozenTrial) -> Trial:
    states: dict[str, Any] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return Trial(
        number=found.number,
        state=states[found.state.name],
        values=found.params,
        value=found.value,
        reported=found.intermediate_values,
        seconds=found.duration.total_seconds() if found.duration else None,
        reason=found.user_attrs.get("reason", ""),
    )


def best(ledger: Ledger, found: list[Trial]) -> Trial | None:
    """The best of those complete, the earliest of equals."""
    sign = -1 if ledger.rules.better == "max" else 1
    done = [trial for trial in found if trial.state == "complete"]
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def importances(ledger: Ledger) -> dict[str, float]:
    """See `sampling.importances`."""
    with alone(ledger.folder):
        return sampling.importances(ledger.rules, ledger.read())


def next_trial(
    ledger: Ledger, limit: int, own: Mapping[str, Any] | None, claim: Callable[[int], T | None]
) -> tuple[Trial, T] | None:
    """A trial to work on: one that a process which is gone has left, or a new one, if there are fewer than `limit`.

    Args:
        own: the values of trial 0, None for drawn ones.
        claim: makes the trial of that number the caller's own; None if it is somebody else's who lives.
    """
    import optuna

    with alone(ledger.folder):
        found = ledger.read()
        for trial in found:
            if trial.state.name == "RUNNING" and (claimed := claim(trial.number)) is not None:
                return _plain(trial), claimed
        if len(found) >= limit:
            return None
        values = dict(own) if own is not None and not found else sampling.propose(ledger.rules, found)
        new = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=values,
            distributions=sampling.distributions(ledger.rules.search),
        )
        trial = ledger.storage.get_trial(ledger.storage.create_new_trial(ledger.study, new))
        claimed = claim(trial.number)
        return None if claimed is None else (_plain(trial), claimed)


def report(ledger: Ledger, number: int, percent: int, value: float) -> bool:
    """Note the metric at so many percent of the run: whether the trial is pruned by it. Asked again, it says the same."""
    with alone(ledger.folder):
        found = ledger.read()
        trial = found[number]
        if trial.state.is_finished():
            return _VERDICT in trial.user_attrs
        if _VERDICT in trial.user_attrs:
            _prune(ledger, trial)
            return True
        last = trial.last_step
        if last is not None and percent < last:
            return False
        if percent != last:
            ledger.storage.set_trial_intermediate_value(trial._trial_id, percent, value)
            found[number] = trial = ledger.storage.get_trial(trial._trial_id)
        pruned, marks = sampling.verdict(ledger.rules, found, number)
        if pruned:
            ledger.storage.set_trial_user_attr(trial._trial_id, _VERDICT, marks)
            _prune(ledger, ledger.storage.get_trial(trial._trial_id))
        else:
            _mark(ledger, trial, marks)
        return pruned


def _mark(ledger: Ledger, trial: FrozenTrial, marks: Mapping[str, Any]) -> None:
    for name in marks.keys() - trial.system_attrs.keys():
        ledger.storage.set_trial_system_attr(trial._trial_id, name, marks[name])


def _prune(ledger: Ledger, trial: FrozenTrial) -> None:
    """Carry a verdict out: the one just given, or one that a kill has left."""
    _mark(ledger, trial, trial.user_attrs[_VERDICT])
    _end(ledger, trial, "PRUNED", trial.intermediate_values.get(trial.last_step or 0))


def finish(ledger: Ledger, number: int, value: float | None, reason: str = "") -> None:
    """Note how a trial ended: its value, or None and the reason for one that failed. A finished one stays as it is."""
    with alone(ledger.folder):
        trial = ledger.read()[number]
        if not trial.state.is_finished():
            if value is None:
                ledger.storage.set_trial_user_attr(trial._trial_id, "reason", reason)
            _end(ledger, trial, "FAIL" if value is None else "COMPLETE", value)


def _end(ledger: Ledger, trial: FrozenTrial, state: str, value: float | None) -> None:
    import optuna

    values = None if value is None or math.isnan(value) else [value]
    ledger.storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState[state], values)
