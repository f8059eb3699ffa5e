"""A run as a separate process: python -m fdl.main, watched while it runs, and never left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdl.files import try_lock
from fdl.rundir import logs
from fdl.rundir.rows import Position, Row, new_rows
from fdl.train.stopping import leave_if
from fdl.types import RunError, UserError, printable

DONE = ("complete", "stopped early")
MOST_STARTS = 3
"""How often a run is resumed that was ended by a signal from elsewhere (an overloaded machine, or a person)."""
_POLL, _READ = 0.1, 1.0  # seconds between looks at the process, and at its rows
_PATIENCE = 10.0  # seconds of waiting without a message
# The kernel kills the child when the thread that started it ends, however it ends (PR_SET_PDEATHSIG, which survives the exec);
# the child looks once whether its parent had died before it asked for that. SIGKILL, because a dying process of several threads
# sends the signal once for each of them, and a run's second SIGTERM is as abrupt; it resumes bit for bit from its last save.
# Not by preexec_fn, which runs Python in the fork of a process that has threads.
_STUB = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(137);os.execv(sys.argv[2],sys.argv[2:])"
)


def arguments(experiment: str, seed: int, overrides: Iterable[str], flags: Iterable[str] = ()) -> list[str]:
    """List what follows `python -m` for such a run, except its --workdir."""
    sets = [f"--set={text}" for text in overrides]
    return ["fdl.main", f"--experiment={experiment}", "--mode=train", f"--seed={seed}", *sets, *flags]


def run(
    experiment: str,
    path: Path,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    asked: Callable[[], int] = lambda: 0,
    between: Callable[[list[Row]], bool | None] = lambda rows: None,
) -> dict[str, Any]:
    """Begin or resume one training run in the directory `path`, in a separate process, and return its summary.json.

    A run that is already finished is not started again. What the process prints is appended to `path`.log, beside the
    directory. Several threads may call this at once, each for its own directory; a thread must outlive its call,
    for on Linux the run ends with it (elsewhere a run outlives a parent that was killed).

    Args:
        experiment: as --experiment takes it.
        overrides: each "path=value", as --set takes it.
        flags: further flags ("--notest", `Options.passed_on`).
        settings: the resulting settings, as --show names them: a run made under other settings of the file is resumed.
        asked: the signal that asks this process to stop, else 0.
        between: is given the rows of metrics.jsonl, each once and in order (those of an earlier start first), all of them
            before this returns. Where it returns True, a run still in progress is made to save and stop, and
            {"status": "stopped"} is returned; one that has ended is finished, whatever its rows are.

    Raises:
        RunError: the run failed (its own last words are repeated).
        UserError: the run refused its input.
        Interrupted: `asked`; the run has saved.
    """
    position, seen = Position(), 0

    def wants_end() -> bool:
        nonlocal position, seen
        new, position = new_rows(path / "metrics.jsonl", position)
        rows = [row for row in new if row["step"] > seen]  # a resumed run writes some rows again
        seen = rows[-1]["step"] if rows else seen
        return bool(rows) and between(rows) is True

    for _ in range(MOST_STARTS):
        wait_until_free(path, asked)
        done = finished(path, experiment, seed, overrides, flags, settings)
        wanted = wants_end()
        if done or wanted:
            return done or {"status": "stopped"}
        log = path.with_name(f"{path.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [*arguments(experiment, seed, overrides, flags), "--distributed=off", f"--workdir={path}"]
        with open(log, "ab") as out:
            begun = out.tell()
            safe = ["-P"] if sys.flags.safe_path else []
            code, stopped = _watch([sys.executable, *safe, "-m", *command], out, asked, wants_end)
        if code == 0:  # also where it should have stopped, but ended before it noticed
            wants_end()
            return logs.read_summary(path)
        if stopped:
            return {"status": "stopped"}
        if code == 2:
            raise UserError(_last_words(log, begun, code))
        if code >= 0 and code not in (129, 130, 143):
            break
    raise RunError(f"{_last_words(log, begun, code)} ({log})")


def finished(
    path: Path,
    experiment: str,
    seed: int,
    overrides: Sequence[str],
    flags: Sequence[str],
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Return summary.json of the run that was asked for, if it is in `path` and finished; else None.

    A run made by `fdl.multirun.vmapped` has no page, and one that failed there fails again.
    """
    name = Path(experiment).stem if experiment.endswith(".py") else experiment.removeprefix("experiments.")
    try:
        config = json.loads((path / "config.json").read_text())
        summary = logs.read_summary(path)
        same = (config["experiment"], config["seed"], config["overrides"]) == (name, seed, list(overrides))
        same &= settings is None or config["settings"] == dict(settings)
        # A summary may belong to a shorter run that is to be continued, or to one that did not use the test split.
        whole = summary["steps"] >= config["total_steps"] or summary["status"] == "stopped early"
        together = "together_with" in summary
        if together and summary["status"] == "failed":
            return dict(summary) if same and whole else None
        page = together or "--noreport" in flags or (path / "report.html").exists()
        tested = "--notest" in flags or any(k[:5] == "test/" for k in summary["metrics"])
        return dict(summary) if same and whole and page and tested and summary["status"] in DONE else None
    except (OSError, ValueError, KeyError):
        return None


def _watch(command: list[str], out: Any, asked: Callable[[], int], wants_end: Callable[[], bool]) -> tuple[int, bool]:
    """Start the command and wait for it; return its exit code, and whether `wants_end` ended it.

    It has its own session: a Ctrl-C at the terminal reaches only this process, which passes it on once; a second signal
    would end the run without saving.
    """
    with subprocess.Popen(
        _tied(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        stopped, read = False, time.monotonic()
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
                leave_if(asked)
                if time.monotonic() - read > _READ:
                    read = time.monotonic()
                    if wants_end():
                        stopped = True
                        break
        finally:
            process.send_signal(signal.SIGTERM)  # does nothing where it has ended
            process.wait()
    return process.returncode, stopped


def _tied(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _STUB, str(os.getpid()), *command]


def _last_words(log: Path, begun: int, code: int) -> str:
    """Return the run's own error line, or how it ended."""
    with open(log, "rb") as file:
        file.seek(begun)
        lines = file.read().decode(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("fdl: error: ")]
    if said:
        return printable(said[-1].removeprefix("fdl: error: "), 600)
    return f"the run was ended by {signal.Signals(-code).name}" if code < 0 else f"the run ended with exit code {code}"


def wait_until_free(path: Path, asked: Callable[[], int]) -> None:
    """Wait until no process holds the run's lock: one that is being ended needs a moment, as it may be saving."""
    lock, began, said = path / ".lock", time.monotonic(), False
    while lock.exists():
        leave_if(asked)
        handle = try_lock(lock)
        if handle is not None:
            os.close(handle)
            return
        if not said and time.monotonic() - began > _PATIENCE:
            said = True
            print(f"waiting for process {lock.read_text().strip()}, which uses {path}", flush=True)
        time.sleep(_POLL)
