"""Campaigns of faults on runs of two processes; each is a pure function of its seed but for the machine's own timing.

PYTHONPATH=tests python -m processes.faults signals|kills|stuck COUNT [--seed=0]      prints one line of JSON
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import forked

from processes import runs

STEPS = 120
FLAGS = (f"--set=steps={STEPS}", "--set=eval_every=30", "--set=save_every=15", "--set=log_every=15", "--parallel=jit")
QUIET = [["no_report"]]
WATCHDOG = 90  # on the runs that are not to hang: none of them may end by it
STUCK_WATCHDOG = 12
NAMED_WITHIN = 35.0  # seconds from the kill to the end of the survivor: the heartbeat and five more
PER_RUN = 5


def _begin(start: runs.Start, workdir: Path, **kind: Any) -> list[runs.Process]:
    kind = {"hooks": {0: QUIET, 1: QUIET}} | kind
    return start(*FLAGS, f"--watchdog={WATCHDOG}", f"--workdir={workdir}", **kind)


Known = tuple[str, float]


def reference(start: runs.Start, folder: Path) -> Known:
    """The digest of a run that nothing disturbs, and its seconds from the joined processes to the end."""
    processes = _begin(start, folder / "undisturbed")
    at = _when_it_trains(folder / "undisturbed", processes)
    codes = runs.wait_all(processes, 400)
    assert codes == [0, 0], [process.err()[-2000:] for process in processes]
    return runs.summary(folder / "undisturbed")["state_sha256"], time.monotonic() - at


def _when_it_trains(workdir: Path, processes: list[runs.Process], seconds: float = 300) -> float:
    """When both processes hold their marks in the run directory."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(process.code() is None for process in processes):
        marks = [workdir / f".process-{process.index}" for process in processes]
        if all(
            mark.exists() and f"pid {process.pid}" in mark.read_text()
            for mark, process in zip(marks, processes, strict=True)
        ):
            return time.monotonic()
        time.sleep(0.01)
    raise AssertionError([f"{process.code()}: {process.err()[-2000:]}" for process in processes])


def newest(workdir: Path) -> int:
    """The last step that counts, 0 where there is none."""
    return max((int(path.parent.name) for path in workdir.glob("checkpoints/*/manifest.json")), default=0)


def signals(
    start: runs.Start, folder: Path, count: int, seed: int, until: float = math.inf, known: Known | None = None
) -> dict[str, Any]:
    """SIGTERM or SIGINT to one of two processes at any time from the first moment of training: both save one step.

    Some signals to a run, each followed by a start that goes on; then the end has the bits of the undisturbed run.
    """
    rng = random.Random(seed)
    expected, seconds = known or reference(start, folder)
    seen = {"signals": 0, "runs": 0, "starts": 1, "slowest": 0.0}
    while seen["signals"] < count and time.monotonic() < until:
        workdir = folder / f"signals{seen['runs']}"
        for turn in range(PER_RUN + 1):
            processes = _begin(start, workdir)
            seen["starts"] += 1
            if turn < PER_RUN and seen["signals"] < count:
                at = _when_it_trains(workdir, processes)
                time.sleep(rng.uniform(0, 0.7 * seconds / PER_RUN))
                who, signum = rng.randrange(2), rng.choice([signal.SIGTERM, signal.SIGINT])
                at, running = time.monotonic(), processes[who].code() is None
                processes[who].signal(signum)
                codes = runs.wait_all(processes, 200)
                if codes == [0, 0]:
                    break  # it had come to the end before
                assert running
                assert codes == [128 + signum] * 2, (codes, [process.err()[-2000:] for process in processes])
                hint = [process.err().strip().splitlines()[-1] for process in processes]
                assert all("saved; the same command" in line for line in hint), hint
                seen["signals"] += 1
                seen["slowest"] = max(seen["slowest"], time.monotonic() - at)
                continue
            codes = runs.wait_all(processes, 400)
            assert codes == [0, 0], [process.err()[-2000:] for process in processes]
            break
        assert runs.summary(workdir)["state_sha256"] == expected, f"run {seen['runs']} has other bits"
        _each_step_once(workdir)
        seen["runs"] += 1
    return seen


def kills(
    start: runs.Start, folder: Path, count: int, seed: int, until: float = math.inf, known: Known | None = None
) -> dict[str, Any]:
    """SIGKILL to one of two processes at any time of the training: the other names it and ends; a start goes on."""
    rng = random.Random(seed)
    expected, seconds = known or reference(start, folder)
    seen: dict[str, Any] = {"kills": 0, "runs": 0, "starts": 1, "slowest": 0.0, "not_named": 0, "how": {}}
    while seen["kills"] < count and time.monotonic() < until:
        workdir = folder / f"kills{seen['runs']}"
        for turn in range(PER_RUN + 1):
            processes = _begin(start, workdir)
            seen["starts"] += 1
            if turn < PER_RUN and seen["kills"] < count:
                _when_it_trains(workdir, processes)
                time.sleep(rng.uniform(0, 0.7 * seconds / PER_RUN))
                who = rng.randrange(2)
                victim, survivor = processes[who], processes[1 - who]
                at = time.monotonic()
                before = newest(workdir)
                victim.signal(signal.SIGKILL)
                if victim.wait(5) == 0:
                    survivor.wait(60)
                    break  # it had come to the end before
                code = survivor.wait(NAMED_WITHIN)
                assert code, f"the survivor ended well: {survivor.err()[-2000:]}"
                named = f"process {who} " in survivor.err() and f"pid {victim.pid}" in survivor.err()
                if not named:
                    seen["not_named"] += 1
                    seen.setdefault("unnamed", []).append([code, survivor.err()[-6000:]])
                seen["how"][str(code)] = seen["how"].get(str(code), 0) + 1
                seen["slowest"] = max(seen["slowest"], time.monotonic() - at)
                seen["kills"] += 1
                assert newest(workdir) >= before, "a checkpoint was lost"
                continue
            codes = runs.wait_all(processes, 400)
            assert codes == [0, 0], [process.err()[-2000:] for process in processes]
            break
        assert runs.summary(workdir)["state_sha256"] == expected, f"run {seen['runs']} has other bits"
        _each_step_once(workdir)
        seen["runs"] += 1
    return seen


def _each_step_once(workdir: Path) -> None:
    steps = [row["step"] for row in runs.rows(workdir)]
    assert steps == sorted(set(steps)), steps
    assert set(range(15, STEPS + 1, 15)) <= set(steps), steps


KINDS = ("stopped", "feed", "save", "evaluation")


def stuck(
    start: runs.Start, folder: Path, count: int, seed: int, until: float = math.inf, at_once: int = 3
) -> dict[str, Any]:
    """One of two processes stays alive and does nothing: whoever can ends with 124 and shows its stacks."""
    rng = random.Random(seed)
    cases = [(number, KINDS[number % len(KINDS)], rng.randrange(2), rng.randrange(1, STEPS)) for number in range(count)]

    def one(case: tuple[int, str, int, int]) -> tuple[str, float] | None:
        return (case[1], _stuck(start, folder, *case)) if time.monotonic() < until else None

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        seen = [found for found in pool.map(one, cases) if found]
    each = {kind: sum(found[0] == kind for found in seen) for kind in KINDS}
    return {"stuck": len(seen), **each, "slowest": max(seconds for _, seconds in seen)}


def _stuck(start: runs.Start, folder: Path, number: int, kind: str, who: int, step: int) -> float:
    workdir = folder / f"stuck{number}"
    if kind == "save":
        who = 0  # the process that seals
    words = {
        "stopped": [],
        "feed": [["stuck_feed", str(step)]],
        "save": [["stuck_save", str(step * 4 // STEPS)]],
        "evaluation": [["stuck_evaluation", str(1 + step * 8 // STEPS)]],
    }[kind]
    hooks = {index: QUIET + (words if index == who else []) for index in range(2)}
    processes = start(*FLAGS, f"--watchdog={STUCK_WATCHDOG}", f"--workdir={workdir}", hooks=hooks)
    at = time.monotonic()
    if kind == "stopped":
        _when_it_trains(workdir, processes)
        runs.wait_for_step(workdir, 15, processes, 300)
        processes[who].signal(signal.SIGSTOP)
        at = time.monotonic()
    ends = [process for process in processes if kind != "stopped" or process.index != who]
    codes = runs.wait_all(ends, 300 if kind != "stopped" else STUCK_WATCHDOG + 30)
    seconds = time.monotonic() - at
    for process in processes:
        process.signal(signal.SIGKILL)
    told = {process.index: process.err() for process in ends}
    assert runs.HUNG in codes, (kind, who, step, codes, told)
    for process, code in zip(ends, codes, strict=True):
        if code == runs.HUNG:
            assert "nothing was finished for" in told[process.index]
            assert "most recent call first" in told[process.index]
        else:  # the other had ended before this one's time was over
            assert code == 1, (kind, who, step, code, told[process.index])
            assert f"process {1 - process.index} " in told[process.index]
    return seconds if kind == "stopped" else 0.0


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("campaign", choices=("signals", "kills", "stuck"))
    flags.add_argument("count", type=int)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--seconds", type=float, default=math.inf, help="begin nothing new after so long")
    given = flags.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root, forked.server() as server, runs.starter(server, Path(root)) as start:
        seen = globals()[given.campaign](start, Path(root), given.count, given.seed, began + given.seconds)
    print(json.dumps(seen | {"seed": given.seed, "seconds": round(time.monotonic() - began)}), flush=True)


if __name__ == "__main__":
    main()
