"""What every experiment reaches: each is run as a user runs it, and its result added to the ledger."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import ledger
from benchmarks.machine import busy_seconds
from fdl.experiment import experiment_names, find_experiment
from fdl.types import UserError


def measure(only: list[str], seeds: int, data_dir: str | None) -> list[dict[str, Any]]:
    """Run experiments with the seeds 0 .. seeds-1, one after the other; the table of their results.

    Args:
        only: names; empty: every experiment that is no study.
    """
    names = only or [name for name in experiment_names() if find_experiment(name).study is None]
    folder = Path(tempfile.mkdtemp(prefix="fdl-accuracy-"))
    done = []
    for name in names:
        for seed in range(seeds):
            workdir = folder / f"{name}-{seed}"
            flags = [f"--experiment={name}", f"--seed={seed}", f"--workdir={workdir}"]
            flags += [f"--data_dir={data_dir}"] if data_dir else []
            before = _others()
            code = subprocess.run([sys.executable, "-P", "-m", "fdl.main", *flags], check=False).returncode
            others = _others() - before
            if code:
                raise UserError(f"{name} with seed {seed} ended with exit code {code}; its run is in {workdir}")
            result = ledger.read_run(workdir)
            # A core that others kept busy for a twentieth of the time does not change a figure.
            done = ledger.add_results([dataclasses.replace(result, alone=others < 0.05 * result.seconds)])
    lines = ledger.describe_all(done)
    ledger.write_documents(lines)
    return [
        {"experiment": x.experiment, "reaches": x.reaches, "simple": x.baseline, "time": x.time}
        for x in lines
        if x.experiment in names
    ]


def _others() -> float:
    """Return the seconds of CPU time that everybody but this process's children has used so far."""
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_seconds() - ours.ru_utime - ours.ru_stime
