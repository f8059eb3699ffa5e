"""A sweep as a user meets it: stopped at any moment and started again, no trial is lost or repeated."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install -e '.[tune]'")

from test_sweep import order, told, tried

TINY = """
from fdl.data import Data, ops, sources
from fdl.experiment import Experiment
from fdl.models import MLP
from fdl.optim import Optimizer
from fdl.tasks import Classification
from fdl.experiment.tuning import Log, Search


class Bare(Classification):
    def panels(self, view):
        return []


def experiment():
    return Experiment(
        data=Data(load=sources.digits, validation=300, prepare=(ops.Standardize("unit"),), feed="numpy"),
        model=MLP(widths=(16,)), task=Bare(), optimizer=Optimizer(rule="adam", learning_rate=1e-2), num_examples=600,
        steps=96, batch_size=32, eval_every=12, save_every=12, log_every=12,
    )


def search():
    # Whether a trial that is to be pruned comes to its end before that is a matter of time; no pruner, so that all ends alike.
    return Search({"optimizer.learning_rate": Log(1e-4, 1e-1)}, trials=3, pruner="none")
"""


def start(server: forked.Server, folder: Path) -> forked.Start:
    """The sweep in `folder`/sweep, begun or gone on with."""
    (folder / "tiny.py").write_text(TINY)
    argv = ["--experiment=tiny.py", "--mode=sweep", "--workdir=sweep"]
    return server.start(argv, folder, out=folder / "out", err=folder / "err")


def results(folder: Path) -> tuple[list[tuple[Any, ...]], dict[str, Any], list[list[str]]]:
    """The trials, the summary, and what every trial logged (but its speed)."""
    what = order(pruner="none")
    rows = []
    for trial in tried(folder / "sweep", what):
        path = folder / "sweep" / "trials" / f"{trial.number:04}" / "metrics.jsonl"
        logged = [json.loads(line) for line in path.read_text().splitlines()]
        rows.append([json.dumps({k: v for k, v in row.items() if k != "examples_per_second"}) for row in logged])
    return told(tried(folder / "sweep", what)), json.loads((folder / "sweep" / "summary.json").read_text()), rows


@pytest.fixture(scope="module")
def undisturbed(server: forked.Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A sweep that nobody stopped, and the seconds it took."""
    folder, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    started = start(server, folder)
    assert started.wait(300) == 0, started.said()
    assert started.err.read_text() == ""
    return folder, time.monotonic() - began


def children(pid: int) -> list[int]:
    """The processes that this one started, and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def stop(sweep: forked.Start, how: str) -> None:
    """SIGKILL for the sweep, for the run and then the sweep, or for the run alone; SIGTERM for the sweep."""
    for child in children(sweep.pid) if how in ("both", "run") else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    if how != "run":
        sweep.send(signal.SIGTERM if how == "told" else signal.SIGKILL)


def campaign(server: forked.Server, root: Path, undisturbed: tuple[Path, float], stops: list[str], seed: int) -> None:
    """Sweeps that are stopped at random instants, one after another until all stops are dealt; each ends the same."""
    draw, dealt, sweeps = random.Random(seed), 0, 0
    reference, seconds = results(undisturbed[0]), undisturbed[1]
    while dealt < len(stops):
        folder = root / str(sweeps)
        folder.mkdir()
        sweeps += 1
        code = -1
        while code:
            started, how = start(server, folder), ""
            if dealt < len(stops):
                time.sleep(draw.uniform(0, 0.35 * seconds))
                how = stops[dealt] if started.code() is None else ""
                dealt += bool(how)
                stop(started, how) if how else None
            code, err = started.wait(600), started.err.read_text()
            # A run that was killed alone is started again by the sweep; a signal may come when all is done, or before
            # there is a handler for it.
            allowed = {"": [0], "run": [0], "told": [143, -signal.SIGTERM, 0]}.get(how, [-signal.SIGKILL])
            assert code in allowed, (how, err)
            if code == 143:
                assert "its trials are saved; the same command with --workdir=sweep goes on from there" in err
        assert results(folder) == reference
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and PR_SET_PDEATHSIG are Linux's")
def test_killed_at_random_moments_no_trial_is_lost_or_repeated(
    server: forked.Server, tmp_path: Path, undisturbed: tuple[Path, float]
) -> None:
    campaign(server, tmp_path, undisturbed, ["both", "told"], seed=0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc and PR_SET_PDEATHSIG are Linux's")
def test_twenty_one_kills_and_seven_signals(
    server: forked.Server, tmp_path: Path, undisturbed: tuple[Path, float]
) -> None:
    campaign(server, tmp_path, undisturbed, 7 * ["sweep", "both", "run", "told"], seed=1)


def test_the_sweep_as_a_user_meets_it(undisturbed: tuple[Path, float]) -> None:
    found, summary, _ = results(undisturbed[0])
    assert [number for number, *_ in found] == [0, 1, 2]
    assert found[0][2] == {"optimizer.learning_rate": 1e-2}
    best = undisturbed[0] / "sweep" / "best"
    trained = json.loads((best / "summary.json").read_text())
    trial = json.loads(
        (undisturbed[0] / "sweep" / "trials" / f"{summary['best']['trial']:04}" / "summary.json").read_text()
    )
    assert trained["state_sha256"] == trial["state_sha256"], "the same settings and seed, the same bits"
    assert not [name for name in trial["metrics"] if name.startswith("test/")]
    assert summary["metrics"] == trained["metrics"]
    assert (best / "report.html").exists()
    assert (undisturbed[0] / "out").read_text().count("test/accuracy") == 1
