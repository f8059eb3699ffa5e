"""What a run was and what it reached: config.json and summary.json."""

from __future__ import annotations

import platform
import resource
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.checkpoint import saving
from fdl.rundir import logs
from fdl.tasks.task import View
from fdl.train.evaluation import evaluate, view
from fdl.train.loop import restore, restore_best
from fdl.train.program import Program
from fdl.train.progress import Progress
from fdl.types import count_examples

_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow", "tensorflow-cpu", "tensorflow-datasets", "numpy",
)  # fmt: skip


def config(program: Program, settings: Mapping[str, str], overrides: list[str], command: str) -> dict[str, Any]:
    """Everything needed to know, later, what this run was."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    splits = program.data.splits
    return {
        "experiment": program.experiment.name,
        "overrides": overrides,
        "settings": dict(settings),
        "seed": program.seed,
        "command": command,
        "versions": versions,
        "git_commit": _git_commit(),
        "devices": [str(device) for device in program.layout.mesh.devices.flat],
        "processes": jax.process_count(),
        "layout": program.layout.mode,
        "mesh": dict(program.layout.mesh.shape),
        "program_sha256": program.compiled.sha256,
        "total_steps": program.total_steps,
        "data": {"name": splits.name, "source": splits.source, "sha256": splits.sha256},
    }


def _git_commit() -> str | None:
    try:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=5,
        )  # fmt: skip
        return done.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def summarise(
    program: Program, workdir: Path, progress: Progress, between: Callable[[], None], test: bool = True
) -> tuple[dict[str, Any], View]:
    """Reload the best checkpoint, evaluate it on the test split, and describe the run; with the view for the report.

    Every process must call it; `between` is called after each batch and may raise to leave early. Without `test` the
    test split is left alone.
    """
    root, splits = workdir / "checkpoints", program.data.splits
    state, _ = restore(program, root)
    last_step, digest = int(state.step), saving.state_sha256(state)
    state, best_step = restore_best(program, root)
    parts = {"test": splits.test if test else None, "eval": splits.validation}
    metrics = {
        f"{name}/{k}": v
        for name, part in parts.items()
        if part is not None
        for k, v in evaluate(program, state.variables, part, between).items()
    }
    naive = program.experiment.task.baselines(splits) if test else {}
    baselines = {name: {f"test/{k}": v for k, v in found.items()} for name, found in naive.items()}
    rows = [row["examples_per_second"] for row in logs.read_rows(workdir) if "examples_per_second" in row]
    summary = {
        "experiment": program.experiment.name,
        "status": "complete" if last_step >= program.total_steps else "stopped early" if progress.stopped else "incomplete",
        "stopped": progress.stopped,
        "steps": last_step,
        "best_step": best_step,
        "seed": program.seed,
        "data": {
            "name": splits.name, "source": splits.source, "where": splits.where, "sha256": splits.sha256,
            "train_examples": count_examples(splits.train),
            "eval_examples": count_examples(splits.validation) if splits.validation is not None else 0,
            "test_examples": count_examples(splits.test) if splits.test is not None else 0,
        },
        "metrics": metrics,
        "baselines": baselines,
        "timing": {"training": progress.seconds, "examples_per_second": float(np.median(rows)) if rows else None},
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "devices": [str(device) for device in program.layout.mesh.devices.flat],
        "processes": jax.process_count(),
        "layout": program.layout.mode,
        "mesh": dict(program.layout.mesh.shape),
        "state_sha256": digest,
    }  # fmt: skip
    return summary, view(program, state.variables)
