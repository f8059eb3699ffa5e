"""The run directory: made for one run, locked while it runs, and never used by another experiment."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fdl import files
from fdl.rundir.config import Config, read_config
from fdl.types import UserError

RUNS = Path("runs")


def create(name: str) -> Path:
    """Make a new directory runs/<name>-<time>-<random> that no second start can share."""
    for _ in range(100):
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        path = RUNS / f"{name}-{stamp}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"a run directory cannot be made in {RUNS.absolute()}: {error.strerror}; give --workdir"
            ) from error
    raise UserError(f"no free name for a run directory in {RUNS.absolute()}; give --workdir")


def newest(experiment: str) -> Path:
    """Return the trained run of that experiment under runs/ that was begun last.

    Its config.json decides: names may begin alike, and a copied file has the time of the copy.

    Raises:
        UserError: there is none.
    """
    found = []
    for path in RUNS.iterdir() if RUNS.is_dir() else []:
        with contextlib.suppress(UserError, OSError):
            config = read_config(path) if (path / "checkpoints").is_dir() else None
            if config and config["experiment"] == experiment:
                found.append((str(config.get("started", "")), path.name, path))
    if not found:
        raise UserError(
            f"there is no trained run of {experiment} under {RUNS.absolute()}; train first, or give --workdir"
        )
    return max(found)[-1]


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Hold the directory for this process; the lock ends with the process, however it ends.

    Raises:
        UserError: another process holds it (its pid is named), or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(files.locked(workdir / ".lock", wait=0))
            for left in workdir.glob(".*.tmp"):  # half-written by a start that was killed
                left.unlink(missing_ok=True)
            files.write_holder(handle, f"{os.getpid()}\n")
        except BlockingIOError as error:
            raise UserError(
                f"--workdir={workdir} is in use by process {error.strerror}; wait for it or give another"
            ) from None
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}; give another") from error
        yield


def claim(stack: contextlib.ExitStack, workdir: Path, check: Callable[[Config], None]) -> dict[str, Any] | None:
    """Take the run in `workdir` for this process, and return its config.json; None where there is no run yet.

    A directory without a run is not written to, because its start may still be refused; `begin` takes it.

    Args:
        stack: holds the lock until it is closed.
        check: refuses (UserError) a run that is not the one to resume; called under the lock.
    """
    if read_config(workdir) is None:
        return None
    stack.enter_context(lock(workdir))
    before = read_config(workdir)
    if before is not None:
        check(before)
    return before


def begin(stack: contextlib.ExitStack, workdir: Path, config: Config) -> None:
    """Take an empty directory for a new run: hold its lock until `stack` is closed, and write its config.json.

    Raises:
        UserError: another start was faster.
    """
    stack.enter_context(lock(workdir))
    if read_config(workdir) is not None:
        raise UserError(
            f"--workdir={workdir}: another start has just begun a run there; the same command goes on with it"
        )
    files.write_json(workdir / "config.json", config)
