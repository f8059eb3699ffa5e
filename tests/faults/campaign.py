"""Runs that are stopped at random instants and started again until they are done."""

from __future__ import annotations

import collections
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked

from faults import starts

EXPERIMENTS = ("small_fashion", "small_lstm")
SAVE_EVERY = 15  # of both
LANES = 2


def arguments(experiment: str) -> list[str]:
    return [f"--experiment={starts.HERE / experiment}.py", "--workdir=run"]


WHOLE: dict[str, tuple[starts.Outcome, float]] = {}
"""Of runs that this process has already made: experiment -> what `whole` returns."""


def whole(server: forked.Server, experiment: str, cwd: Path) -> tuple[starts.Outcome, float]:
    """What the run gives that nobody stops, and the seconds it takes with a warm compile cache."""
    if experiment in WHOLE:
        return WHOLE[experiment]
    outcomes, seconds = [], 0.0
    for name in ("first", "again"):
        (cwd / name).mkdir(parents=True)
        began = time.monotonic()
        started = starts.start(server, arguments(experiment), cwd / name, rows=cwd / name / "fed")
        assert started.wait() == 0, started.said()
        outcomes.append(starts.outcome(cwd / name / "run", cwd / name / "fed"))
        seconds = time.monotonic() - began
    assert outcomes[0] == outcomes[1]
    return WHOLE.setdefault(experiment, (outcomes[0], seconds))


def stop_and_go(server: forked.Server, stops: Sequence[str], seed: int, root: Path) -> collections.Counter[str]:
    """Deal out the stops ("KILL", "TERM", "INT", "TWICE") over as many runs as they need, each compared at its end.

    Returns:
        How often what happened: runs, stops by kind and by phase; "most repeated": the steps made again after a kill;
        "slowest": milliseconds from a signal to the end.
    """
    failed = threading.Event()

    def lane(number: int) -> collections.Counter[str]:
        try:
            experiment = EXPERIMENTS[number % 2]
            return _lane(server, parts[number], experiment, seed + number, root / f"lane{number}", failed)
        except BaseException:
            failed.set()
            raise

    parts = [stops[number::LANES] for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as lanes:
        done = list(lanes.map(lane, range(LANES)))
    total: collections.Counter[str] = collections.Counter()
    for counted in done:
        for name, value in counted.items():
            total[name] = max(total[name], value) if name in ("most repeated", "slowest") else total[name] + value
    return total


def _lane(
    server: forked.Server, stops: Sequence[str], experiment: str, seed: int, root: Path, failed: threading.Event
) -> collections.Counter[str]:
    rng = random.Random(seed)
    waiting = list(stops)
    count: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    expected, seconds = whole(server, experiment, root / "whole")
    while waiting and not failed.is_set():  # an error in another lane is told soon
        cwd = root / f"run{count['runs']}"
        cwd.mkdir()
        run, fed, code = cwd / "run", cwd / "fed", None
        fed.touch()
        while code != 0:
            started = starts.start(server, arguments(experiment), cwd, rows=fed)
            if not waiting:
                code = started.wait()
                assert code == 0, started.said()
                break
            before, at = _last_fed(fed), time.monotonic()
            code = started.ended(rng.uniform(0, seconds))
            if code is None:
                kind = waiting.pop()
                count[f"{kind} in {_phase(run)}"] += 1
                code = _stop(started, kind, count)
                if code == "saved" and _last_fed(fed) > before:
                    saved = max(int(p.parent.name) for p in run.glob("checkpoints/*/manifest.json"))
                    assert saved == _last_fed(fed) + 1, "a step that was made was not saved"
            else:
                assert code == 0, started.said()
                # The first run had its programs to compile: an instant as late as its end may never come again.
                seconds = min(seconds, time.monotonic() - at)
        assert starts.outcome(run, fed) == expected, f"other bits: {cwd}, seed {seed}"
        assert starts.leftovers(run) == []
        count["runs"] += 1
        count["most repeated"] = max(count["most repeated"], starts.most_repeated(fed))
        if count["runs"] % 5 == 0:
            print(f"{experiment}: {dict(count)}, {len(waiting)} left, {time.monotonic() - began:.0f} s", flush=True)
    return count


def _stop(started: forked.Start, kind: str, count: collections.Counter[str]) -> int | str:
    """The exit code; "saved" after a signal that was answered with a save."""
    count[kind] += 1
    if kind == "KILL":
        started.send(signal.SIGKILL)
        code = started.wait()
        assert code in (-signal.SIGKILL, 0), started.said()
        return code
    signum = signal.SIGINT if kind == "INT" else signal.SIGTERM
    began = time.monotonic()
    started.send(signum)
    if kind == "TWICE":
        time.sleep(0.02)
        started.send(signum)
    code = started.wait(30)
    count["slowest"] = max(count["slowest"], round(1000 * (time.monotonic() - began)))
    # -15, -2: before fdl has set its handlers and when all is done the system ends the process; a shell calls it 143, 130.
    assert code in (0, 128 + signum, -signum), (code, started.said())
    assert not started.errors() or code == 130, started.said()
    if code == 128 + signum and "; the same command" in started.said():
        assert "saved" in started.said(), started.said()
        return "saved"
    return code


def _last_fed(fed: Path) -> int:
    lines = fed.read_text().splitlines()
    return int(lines[-1].split(" ", 2)[1]) if lines else -1


def _phase(run: Path) -> str:
    if not (run / "config.json").exists():
        return "start-up"
    if not (run / "summary.json").exists():
        return "the loop" if any(run.glob("metrics.jsonl")) else "restore"
    return "the report"
