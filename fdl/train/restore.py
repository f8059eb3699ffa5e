"""The state that a run begins with, and the one that it is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdl.checkpoint import manifest, saving
from fdl.distributed import processes
from fdl.train.program import Program
from fdl.train.progress import Progress
from fdl.train.step import State
from fdl.types import RunError


def restore(program: Program, root: Path) -> tuple[State, Progress]:
    """Restore the newest good checkpoint under `root`, or make the initial state."""

    def newest() -> tuple[int, Any] | None:
        manifest.clean(root)
        saved = manifest.latest(root)
        return (saved.step, manifest.known_best(root, saved)) if saved else None

    found = processes.from_first(newest)
    if found is None:
        return program.compiled.initial_state(), Progress()
    step, best = found
    saved = manifest.read(root, step)
    return saving.restore(saved, program.state_spec), Progress.from_json({**saved.progress, **best})


def restore_best(program: Program, root: Path) -> tuple[State, int]:
    """Restore the state that the validation split chose (the last one where there is no validation), and its step.

    Raises:
        RunError: there is no checkpoint, or none verifies.
    """

    def best() -> int:
        saved = manifest.latest(root)
        if saved is None:
            raise RunError(f"there is no checkpoint in {root}; train first")
        return manifest.best(root, saved).step

    state, saved = saving.restore_chosen(lambda: manifest.read(root, processes.from_first(best)), program.state_spec)
    return state, saved.step
