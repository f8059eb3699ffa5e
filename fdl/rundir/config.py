"""config.json: what a run was begun with, and whether another start may resume it."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from fdl.data import columns
from fdl.data.splits import Splits
from fdl.distributed.layouts import Layout
from fdl.types import UserError, one_line

Config = Mapping[str, Any]

RESUME_MAY_CHANGE = {
    "steps", "log_every", "eval_every", "save_every", "sample_every", "patience", "stop_at", "eval_batch_size", "data.feed",
    "data.on_bad", "on_bad_step", "loss_limit",
}  # fmt: skip
"""Settings that decide how long a run is and what it writes, not what it computes."""
BIT_DECIDING_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
_RECORDED = (
    *BIT_DECIDING_LIBRARIES, "orbax-checkpoint", "tensorflow", "tensorflow-cpu", "tensorflow-datasets", "pillow",
)  # fmt: skip
_LAYOUT = ("devices", "processes", "layout", "mesh")


def make_config(
    *,
    experiment: str,
    settings: Mapping[str, str],
    overrides: list[str],
    seed: int,
    command: str,
    splits: Splits,
    layout: Layout,
    program_sha256: str,
    total_steps: int,
) -> dict[str, Any]:
    """Return everything needed to know later what this run was."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    # Pictures that are decoded batch by batch are what Pillow makes of them; those in memory are in the data's digest.
    leaves = jax.tree.leaves(splits.train, is_leaf=columns.is_column)
    pictures = any(columns.is_column(leaf) and not isinstance(leaf, columns.Windows) for leaf in leaves)
    return {
        "experiment": experiment,
        "overrides": overrides,
        "settings": dict(settings),
        "seed": seed,
        "command": command,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "versions": versions,
        "bits_decided_by": [*BIT_DECIDING_LIBRARIES, *(["pillow"] if pictures else [])],
        "git_commit": _git_commit(),
        "devices": [str(device) for device in layout.mesh.devices.flat],
        "processes": jax.process_count(),
        "layout": layout.mode,
        "mesh": dict(layout.mesh.shape),
        "program_sha256": program_sha256,
        "total_steps": total_steps,
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


def read_config(workdir: Path) -> dict[str, Any] | None:
    """Return config.json of the run, study or sweep in a directory, None where there is none yet.

    Raises:
        UserError: the directory holds something else, or a config that is damaged.
    """
    path = workdir / "config.json"
    try:
        if not path.exists():
            if workdir.exists() and not workdir.is_dir():
                raise UserError(f"--workdir={workdir} is a file; give a directory")
            inside = [p.name for p in workdir.iterdir()] if workdir.is_dir() else []
            others = [name for name in inside if not name.startswith(".") and name != "bad_inputs.csv"]
            if others:
                raise UserError(
                    f"--workdir={workdir} is no run of fdl and not empty (it holds {others[0]}); give another"
                )
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}; give another --workdir") from error
    kinds = {"experiment": str, "settings": dict, "seed": int, "command": str}
    for key, kind in kinds.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise UserError(f"{path} lacks {key!r}: it is damaged, or of another version; give another --workdir")
    return dict(found)


def check_settings(workdir: Path, before: Config, experiment: str, seed: int, settings: Mapping[str, str]) -> None:
    """Refuse to resume a run of another experiment, seed or settings.

    Raises:
        UserError: the settings differ; those that do are named.
    """
    if before["experiment"] != experiment:
        raise UserError(
            f"--workdir={workdir} holds a run of {before['experiment']}, not of {experiment}; give another --workdir"
        )
    was, now = dict(before["settings"]) | {"seed": str(before["seed"])}, dict(settings) | {"seed": str(seed)}
    if differing := differences(was, now, RESUME_MAY_CHANGE):
        raise UserError(
            f"--workdir={workdir} was begun with other settings: {'; '.join(differing)}; set them back or give another --workdir"
        )


def differences(was: Mapping[str, str], now: Mapping[str, str], may_change: set[str] = set()) -> list[str]:  # noqa: B006
    """Return "NAME was OLD, is NEW" for everything that is not the same and may not change."""
    return [
        f"{key} was {was.get(key, 'absent')}, is {now.get(key, 'absent')}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and key not in may_change
    ]


def resume(
    workdir: Path, before: Config, config: Config, accept_changes: bool, code_as_begun: Callable[[], str]
) -> dict[str, Any]:
    """Return the config.json of a resumed run: this start's, with the old run's begin and resumes.

    Args:
        before: the existing config.json.
        config: this start's own.
        code_as_begun: the digest of the training step as the code makes it now under `before`'s own settings.

    Raises:
        UserError: library versions, the data or the training step's code are not those the run was begun with.
    """
    missing = [key for key in ("versions", "data", "program_sha256", *_LAYOUT) if key not in before]
    if missing:
        path = workdir / "config.json"
        raise UserError(f"{path} lacks {missing[0]!r}: it is damaged, or of another version; give another --workdir")
    changed = [
        f"{name} was {before['versions'].get(name)}, is {config['versions'].get(name)}"
        for name in config["bits_decided_by"]
        if before["versions"].get(name) != config["versions"].get(name)
    ]
    if before["data"] != config["data"]:
        changed.append(f"the data was {_short(before['data'])}, is {_short(config['data'])}")
    same_layout = all(before[key] == config[key] for key in _LAYOUT)
    if same_layout and not changed and before["program_sha256"] != code_as_begun():
        changed.append("the training step computes something else: its code was changed")
    if changed and not accept_changes:
        raise UserError(
            f"--workdir={workdir} cannot be resumed bit for bit: {'; '.join(changed)}; go back, give another --workdir, or "
            "--accept_changes"
        )
    start = {name: config[name] for name in ("command", "versions", "git_commit", *_LAYOUT)}
    first = {name: before[name] for name in ("command", "started") if name in before}
    return dict(config) | first | {"resumes": [*before.get("resumes", []), start]}


def _short(data: Mapping[str, object]) -> str:
    return f"{data.get('name')} ({str(data.get('sha256'))[:8]})"
