"""What a run was and what it reached: summary.json."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from fdl.checkpoint import saving
from fdl.data.pipeline import Prepared
from fdl.rundir import logs
from fdl.rundir.rows import Row
from fdl.tasks.task import View
from fdl.train.evaluation import evaluate, view
from fdl.train.program import Program
from fdl.train.progress import Progress
from fdl.train.restore import restore, restore_best
from fdl.types import Metrics, count_examples, one_line


def measure_baselines(program: Program, trainer: Program | None = None) -> dict[str, Metrics]:
    """Compute what naive methods reach on the test split, {} where that fails: it must not end a run.

    Call it before training: what fails here has nothing to do with the model, and is better seen at once.

    Args:
        trainer: the program that trains: where features are cached, simple methods are fitted to these as well.
    """
    splits = program.data.splits
    try:
        found = program.experiment.task.baselines(splits) if splits.test is not None else {}
        if found and trainer is not None and trainer.cut is not None:
            on_features = program.experiment.task.baselines(trainer.data.splits)
            found |= {name: each for name, each in on_features.items() if name not in found}
        return {name: {f"test/{k}": v for k, v in metrics.items()} for name, metrics in found.items()}
    except Exception as error:
        logging.warning("no baselines: %s: %s; the run goes on without them", type(error).__name__, one_line(error))
        return {}


def summarise(
    program: Program,
    workdir: Path,
    progress: Progress,
    between: Callable[[], None] = lambda: None,
    test: bool = True,
    history: Sequence[Row] | None = None,
    baselines: Mapping[str, Metrics] | None = None,
) -> tuple[dict[str, Any], View]:
    """Reload the best checkpoint, evaluate it on the test split, and describe the run; with the view for the report.

    Every process must call it.

    Args:
        between: called after each batch; may raise to leave early.
        test: whether the test split is looked at.
        history: the rows of metrics.jsonl; None: they are read.
        baselines: what `measure_baselines` returned before training; None: it is called.
    """
    history = logs.read_rows(workdir) if history is None else history
    if baselines is None:
        baselines = measure_baselines(program) if test else {}
    root, splits = workdir / "checkpoints", program.data.splits
    state, saved = restore(program, root)
    last_step, digest = int(state.step), saving.state_sha256(state)
    if saved.best_step not in (None, last_step):
        del state  # before the other is read: a run never holds more than two at once
        state, best_step = restore_best(program, root)
    else:
        best_step = last_step
    variables = state.variables
    del state
    parts = {"test": splits.test if test else None, "eval": splits.validation}
    metrics = {
        f"{name}/{k}": v
        for name, part in parts.items()
        if part is not None
        for k, v in evaluate(program, variables, part, between).items()
    }
    rates = [row["examples_per_second"] for row in history if "examples_per_second" in row]
    finished = "complete" if last_step >= program.total_steps else "incomplete"
    summary = {
        "experiment": program.experiment.name,
        "status": "stopped early" if finished == "incomplete" and progress.stopped else finished,
        "stopped": progress.stopped,
        "steps": last_step,
        "best_step": best_step,
        "seed": program.seed,
        "data": describe_data(program.data),
        "metrics": metrics,
        "baselines": dict(baselines),
        "timing": {"training": progress.seconds, "examples_per_second": float(np.median(rates)) if rates else None},
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "devices": [str(device) for device in program.layout.mesh.devices.flat],
        "processes": jax.process_count(),
        "layout": program.layout.mode,
        "mesh": dict(program.layout.mesh.shape),
        "state_sha256": digest,
    }
    return summary, view(program, variables)


def describe_data(data: Prepared) -> dict[str, Any]:
    """Return what summary.json says of the data: their source, their number, and warnings."""
    splits = data.splits
    return {
        "name": splits.name,
        "source": splits.source,
        "where": splits.where,
        "sha256": splits.sha256,
        "train_examples": count_examples(splits.train),
        "eval_examples": count_examples(splits.validation) if splits.validation is not None else 0,
        "test_examples": count_examples(splits.test) if splits.test is not None else 0,
        "standin": splits.standin,
        "leaks": dict(data.leaks),
    }
