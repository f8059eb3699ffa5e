"""The run directory: made for one run alone, locked while it goes, and never taken by another experiment."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fdl import files
from fdl.types import UserError

RUNS = Path("runs")
# What a resume may change: it decides how long a run is and what is written of it, not what it computes.
MAY_CHANGE = {
    "steps", "log_every", "eval_every", "save_every", "sample_every", "patience", "stop_at", "eval_batch_size", "data.feed",
    "on_bad_step", "loss_limit",
}  # fmt: skip
# The libraries that decide bits.
_DECIDE = ("jax", "jaxlib", "flax", "optax", "numpy")


def create(name: str) -> Path:
    """A new directory runs/<name>-<time>-<random> that no second start can share."""
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


def newest(name: str) -> Path:
    """The run of that experiment begun last under runs/.

    Raises:
        UserError: there is none.
    """
    found = [p.parent for p in RUNS.glob(f"{name}-*/config.json") if (p.parent / "checkpoints").is_dir()]
    if not found:
        raise UserError(f"there is no trained run of {name} under {RUNS.absolute()}; train first, or give --workdir")
    return max(found, key=lambda path: (path / "config.json").stat().st_mtime)


def read_config(workdir: Path) -> dict[str, Any] | None:
    """config.json of a run, None where there is no run yet.

    Raises:
        UserError: the directory holds something else, or an unreadable config.
    """
    path = workdir / "config.json"
    if not path.exists():
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; give a directory")
        inside = [p.name for p in workdir.iterdir()] if workdir.is_dir() else []
        others = [name for name in inside if not name.startswith(".") and name != "bad_inputs.csv"]
        if others:
            raise UserError(f"--workdir={workdir} is no run of fdl and not empty (it holds {others[0]}); give another")
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; give another --workdir") from error


def check_same(
    workdir: Path, config: Mapping[str, Any], experiment: str, seed: int, settings: Mapping[str, str]
) -> None:
    """A resume needs the experiment, the seed and the settings that the run was begun with.

    Raises:
        UserError: it names what differs.
    """
    if config.get("experiment") != experiment:
        raise UserError(
            f"--workdir={workdir} holds a run of {config.get('experiment')}, not of {experiment}; give another --workdir"
        )
    before = dict(config.get("settings", {})) | {"seed": str(config.get("seed"))}
    now = dict(settings) | {"seed": str(seed)}
    differing = [
        f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in MAY_CHANGE
    ]
    if differing:
        raise UserError(
            f"--workdir={workdir} was begun with other settings: {'; '.join(differing)}; set them back or give another --workdir"
        )


def continued(workdir: Path, config: Mapping[str, Any], accept_changes: bool) -> dict[str, Any]:
    """The config.json to write: a new run's, or the old run's with this start added to its "resumes".

    Raises:
        UserError: library versions, the data or the training step's code are not those the run was begun with.
    """
    before = read_config(workdir)
    if before is None:
        return dict(config)
    changed = [
        f"{name} was {before['versions'].get(name)}, is {config['versions'].get(name)}"
        for name in _DECIDE
        if before["versions"].get(name) != config["versions"].get(name)
    ]
    if before["data"] != config["data"]:
        changed.append(f"the data was {_short(before['data'])}, is {_short(config['data'])}")
    same_form = all(before.get(key) == config[key] for key in ("settings", "devices", "processes", "layout", "mesh"))
    if same_form and not changed and before["program_sha256"] != config["program_sha256"]:
        changed.append("the training step computes something else: its code was changed")
    if changed and not accept_changes:
        raise UserError(
            f"--workdir={workdir} cannot be resumed bit for bit: {'; '.join(changed)}; go back, give another --workdir, or "
            "--accept_changes"
        )
    start = {
        name: config[name] for name in ("command", "versions", "git_commit", "devices", "processes", "layout", "mesh")
    }
    first = {"command": before["command"], "resumes": [*before.get("resumes", []), start]}
    return dict(config) | first


def _short(data: Mapping[str, Any]) -> str:
    return f"{data['name']} ({data['sha256'][:8]})"


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
