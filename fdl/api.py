"""The Python interface: `fdl.fit` trains as the command line does, to the bit; `fdl.compile` gives the pieces."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fdl.cli import session, training
from fdl.cli.options import Options
from fdl.experiment import Experiment, load_experiment, override
from fdl.rundir.rows import Row
from fdl.tasks.task import View
from fdl.train.program import Program
from fdl.types import Arrays, Metrics

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its directory: report.html, checkpoints, metrics.jsonl, ...
        program: what was trained.
        summary: summary.json.
        history: metrics.jsonl, a row each logged step.
        model: the best checkpoint's model beside its data.
    """

    path: Path
    program: Program
    summary: Mapping[str, Any]
    history: Sequence[Row]
    model: View

    @property
    def metrics(self) -> Metrics:
        """What the best checkpoint reaches: {"test/accuracy": ..., "eval/accuracy": ...}."""
        return dict(self.summary["metrics"])

    @property
    def baselines(self) -> Mapping[str, Metrics]:
        """What simple methods reach on the same split."""
        return dict(self.summary["baselines"])

    def outputs(self, rows: Arrays) -> Any:
        """Apply the model to raw rows like those of the data set: {"inputs": [N, ...]} -> [N, ...] on the host."""
        return self.model.outputs(rows)

    def predict(self, source: PathLike, out: PathLike | None = None) -> list[Path]:
        """Predict for a file, a folder or a prompt, as --mode=predict does; return the files written.

        Args:
            out: the folder to write into; the run's own `predictions` unless given.
        """
        where = self.path / "predictions" if out is None else Path(out)
        return self.program.experiment.task.predict(self.model, os.fspath(source), where)


def fit(
    experiment: Experiment | str,
    workdir: PathLike | None = None,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    data_dir: PathLike | None = None,
    parallel: Literal["auto", "pmap", "jit"] = "auto",
    test: bool = True,
    report: bool = True,
) -> Run:
    """Train an experiment, or resume the run in `workdir`: the same run as `python -m fdl.main` makes, to the bit.

    Args:
        experiment: an Experiment, or what --experiment takes: a name of --list, or the path of a .py file.
        workdir: the run's directory; a new one under runs/ unless given. Giving it again resumes the run.
        seed: decides the initial parameters, the order of examples and all randomness.
        overrides: "path=value" each, as --set takes them.
        data_dir: where data sets are looked for; $FDL_DATA_DIR, then the TFDS default, unless given.
        parallel: how the step is compiled for the devices.
        test: whether the test split is looked at when the run is done.
        report: whether report.html is written.

    Raises:
        UserError: the input does not fit; nothing was written.
        RunError: the run failed; what it had saved is kept.
    """
    options = Options(
        experiment=experiment if isinstance(experiment, str) else experiment.name, command="fdl.fit(...)",
        overrides=tuple(overrides), seed=seed, workdir=None if workdir is None else Path(workdir),
        data_dir=None if data_dir is None else os.fspath(data_dir), parallel=parallel, test=test, report=report,
    )  # fmt: skip
    trained = training.train_run(_resolve(experiment, overrides), options)
    return Run(trained.path, trained.program, trained.summary, trained.history, trained.view)


def compile(
    experiment: Experiment | str,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    data_dir: PathLike | None = None,
    parallel: Literal["auto", "pmap", "jit"] = "auto",
) -> Program:
    """Load an experiment's data and return its program: the pure functions and, in `.compiled`, their executables.

    Arguments as for `fit`.
    """
    options = Options(seed=seed, data_dir=None if data_dir is None else os.fspath(data_dir), parallel=parallel)
    return session.load(_resolve(experiment, overrides), options)


def _resolve(experiment: Experiment | str, overrides: Sequence[str]) -> Experiment:
    if isinstance(experiment, str):
        return load_experiment(experiment, tuple(overrides))
    named = dataclasses.replace(experiment, name=experiment.name or "experiment")
    return override(named, *overrides)
