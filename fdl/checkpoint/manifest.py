"""What makes a checkpoint count: a manifest with the sha256 of every file, written last and verified first.

    checkpoints/<step>/manifest.json   shapes and dtypes of the leaves, the run's progress, sha256 and size of each file

A step without a manifest was interrupted and is removed at the next start. A step whose files do not match its manifest
is passed over with a warning and left where it is (Orbax itself does not notice a flipped bit in an array).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from fdl.files import write_json
from fdl.types import RunError

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Saved:
    """One checkpoint that verified: its step, its folder, and what its manifest says."""

    step: int
    path: Path
    progress: Mapping[str, Any]
    leaves: Mapping[str, tuple[str, list[int]]]


def file_digests(folder: Path) -> dict[str, list[Any]]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            digests[str(path.relative_to(folder))] = [path.stat().st_size, sha256]
    return digests


def verify(folder: Path) -> Saved | str:
    """The checkpoint in `folder`, or a line about what is wrong with it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sealed = manifest.pop("sha256")
        if sealed != hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest():
            return f"{folder / MANIFEST} was changed after it was written"
        files = file_digests(folder)
        for name in sorted(files.keys() | manifest["files"].keys()):
            if files.get(name) != manifest["files"].get(name):
                state = (
                    "missing"
                    if name not in files
                    else "not in the manifest"
                    if name not in manifest["files"]
                    else "changed"
                )
                return f"{folder / name} is {state}"
        return Saved(int(folder.name), folder, manifest["progress"], manifest["leaves"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{folder / MANIFEST} cannot be read: {error}"


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest with a digest over itself: from here on the step counts."""
    body = {name: value for name, value in manifest.items() if name != "sha256"}
    write_json(
        folder / MANIFEST, body | {"sha256": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}
    )


def reseal(folder: Path, progress: Mapping[str, Any]) -> None:
    """The same arrays, and what is newly known of their step."""
    seal(folder, json.loads((folder / MANIFEST).read_text()) | {"progress": dict(progress)})


def drop_older(folder: Path, keep: int) -> None:
    """Delete the steps before `folder`, but for the newest `keep` and each one's `progress.best_step`."""
    sealed = [path for path in step_folders(folder.parent) if (path / MANIFEST).exists()]
    # A later step than this one was damaged and passed over: it must not push out the good ones.
    folders = [path for path in sealed if int(path.name) <= int(folder.name)]
    kept = {path.name for path in folders[-keep:]}
    for path in folders[-keep:]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept.add(str(json.loads((path / MANIFEST).read_text())["progress"]["best_step"]))
    for path in folders:
        if path.name not in kept:
            (path / MANIFEST).unlink()  # from here on it does not count, however far the deletion comes
            shutil.rmtree(path)


def step_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if p.is_dir() and p.name.isdigit()), key=lambda p: int(p.name))


def clean(root: Path) -> None:
    """Remove what an interrupted save or deletion left behind: step folders without a manifest, temporary folders."""
    for path in root.iterdir() if root.is_dir() else []:
        if path.is_dir() and (not path.name.isdigit() or not (path / MANIFEST).exists()):
            shutil.rmtree(path, ignore_errors=True)


def latest(root: Path) -> Saved | None:
    """The newest checkpoint that verifies, None where there is none at all.

    Raises:
        RunError: there are checkpoints and all are damaged. Nothing is deleted.
    """
    folders = [folder for folder in step_folders(root) if (folder / MANIFEST).exists()]
    for folder in reversed(folders):
        found = verify(folder)
        if isinstance(found, Saved):
            return found
        logging.warning("checkpoint %s passed over: %s", folder.name, found)
    if folders:
        raise RunError(
            f"none of the {len(folders)} checkpoints in {root} verifies, nothing was deleted; "
            "bring the folder back from a copy or start in a new --workdir"
        )
    return None


def at_step(root: Path, step: int) -> Saved | None:
    """The checkpoint of that step if it is there and verifies."""
    found = verify(root / str(step))
    return found if isinstance(found, Saved) else None


def read(root: Path, step: int) -> Saved:
    """The checkpoint of that step as its manifest describes it; another process has just verified it."""
    manifest = json.loads((root / str(step) / MANIFEST).read_text())
    return Saved(step, root / str(step), manifest["progress"], manifest["leaves"])
