"""The trials of a sweep on disk: what was tried, and the results.

They are in an SQLite file (Optuna's RDBStorage; its dashboard reads it), each change one transaction: after a kill at any
instant it was made completely or not at all. Optuna's other format, the journal, may be left with half a line, which it then
refuses to read, or with a lock file that every process waits half a minute for. Whoever reads or changes something holds a
kernel lock, which ends with its process: threads and processes take turns in the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fdl import files
from fdl.multirun import sampling
from fdl.multirun.sampling import SearchRules

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

T = TypeVar("T")
_VERDICT = "pruned"
"""The attribute of a trial that is to be pruned: written first, in one transaction, before everything that follows from it."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One of the runs of a sweep.

    Attributes:
        number: from 0.
        state: running, complete, pruned or failed.
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
class TrialStore:
    """The trials of the sweep in `folder` on disk, and the rules they follow."""

    folder: Path
    rules: SearchRules
    storage: Any = dataclasses.field(repr=False)
    study: int

    def read(self) -> list[FrozenTrial]:
        """Read all trials; from the file only those that were unfinished when last read."""
        return list(self.storage.get_all_trials(self.study, deepcopy=False))


def open_store(folder: Path, rules: SearchRules) -> TrialStore:
    """Open the store of the directory `folder`, which exists; its file is made completely or not at all.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = sampling.import_optuna()
    path, beside = folder / "trials.db", folder / ".trials.db.tmp"

    def storage_in(file: Path) -> Any:
        return optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}})

    with hold(folder):
        if not path.exists():
            beside.unlink(missing_ok=True)
            new = storage_in(beside)
            new.create_new_study([optuna.study.StudyDirection[f"{rules.better.upper()}IMIZE"]], sampling.STUDY)
            new.engine.dispose()
            os.replace(beside, path)
        storage = optuna.storages.get_storage(storage_in(path))  # which remembers finished trials
        return TrialStore(folder, rules, storage, storage.get_study_id_from_name(sampling.STUDY))


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: one thread of one process at a time."""
    with files.locked(folder / ".trials.lock"):
        yield


def trials(store: TrialStore) -> list[Trial]:
    """Read all trials, by number."""
    with hold(store.folder):
        return [_plain(found) for found in store.read()]


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


def best(store: TrialStore, found: list[Trial]) -> Trial | None:
    """Return the best complete trial, the earliest of equals."""
    sign = -1 if store.rules.better == "max" else 1
    done = [trial for trial in found if trial.state == "complete"]
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def importances(store: TrialStore) -> dict[str, float]:
    """See `sampling.importances`."""
    with hold(store.folder):
        return sampling.importances(store.rules, store.read())


def next_trial(
    store: TrialStore, limit: int, own: Mapping[str, Any] | None, claim: Callable[[int], T | None]
) -> tuple[Trial, T] | None:
    """Take a trial to work on: one left by a process that has ended, or a new one, if there are fewer than `limit`.

    Args:
        own: the values of trial 0, None for drawn ones.
        claim: makes the trial of that number the caller's own; None if a living process owns it.
    """
    import optuna

    with hold(store.folder):
        found = store.read()
        for trial in found:
            if trial.state.name == "RUNNING" and (claimed := claim(trial.number)) is not None:
                return _plain(trial), claimed
        if len(found) >= limit:
            return None
        values = dict(own) if own is not None and not found else sampling.suggest(store.rules, found)
        new = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=values,
            distributions=sampling.distributions(store.rules.search),
        )
        trial = store.storage.get_trial(store.storage.create_new_trial(store.study, new))
        claimed = claim(trial.number)
        return None if claimed is None else (_plain(trial), claimed)


def report(store: TrialStore, number: int, percent: int, value: float) -> bool:
    """Record the metric at a percentage of the run; return whether the trial should be pruned.

    Asked again, it answers the same. The caller must end the run, and then `prune` the trial.
    """
    with hold(store.folder):
        found = store.read()
        trial = found[number]
        last = trial.last_step
        if trial.state.is_finished() or _VERDICT in trial.user_attrs or (last is not None and percent < last):
            return _VERDICT in trial.user_attrs
        if percent != last:
            store.storage.set_trial_intermediate_value(trial._trial_id, percent, value)
            found[number] = trial = store.storage.get_trial(trial._trial_id)
        before = max((p for p in trial.intermediate_values if p < percent), default=0)
        if not any(before < rung <= percent for rung in sampling.rungs(store.rules)):
            return False  # nothing is decided between two rungs, so the other trials need not be read
        pruned, marks = sampling.should_prune(store.rules, found, number)
        if pruned:
            store.storage.set_trial_user_attr(trial._trial_id, _VERDICT, marks)
        else:
            _mark(store, trial, marks)
        return pruned


def _mark(store: TrialStore, trial: FrozenTrial, marks: Mapping[str, Any]) -> None:
    for name in marks.keys() - trial.system_attrs.keys():
        store.storage.set_trial_system_attr(trial._trial_id, name, marks[name])


def prune(store: TrialStore, number: int) -> None:
    """Record that a trial was ended early, as `report` decided. A finished one is not changed."""
    with hold(store.folder):
        trial = store.read()[number]
        if not trial.state.is_finished():
            _mark(store, trial, trial.user_attrs.get(_VERDICT, {}))
            _end(store, trial, "PRUNED", trial.intermediate_values.get(trial.last_step or 0))


def finish(store: TrialStore, number: int, value: float | None, reason: str = "") -> None:
    """Record how a trial ended: its value, or None and the reason for one that failed. A finished one is not changed."""
    with hold(store.folder):
        trial = store.read()[number]
        if not trial.state.is_finished():
            _mark(store, trial, trial.user_attrs.get(_VERDICT, {}))  # it ended before it could be pruned
            if value is None:
                store.storage.set_trial_user_attr(trial._trial_id, "reason", reason)
            _end(store, trial, "FAIL" if value is None else "COMPLETE", value)


def _end(store: TrialStore, trial: FrozenTrial, state: str, value: float | None) -> None:
    import optuna

    values = None if value is None or math.isnan(value) else [value]
    store.storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState[state], values)
