"""What makes a checkpoint count: a manifest with the sha256 of every file, written last and verified first.

    checkpoints/<step>/manifest.json   shapes and dtypes of the leaves, the run's progress, sha256 and size of each file

A step without a manifest was interrupted and is removed at the next start. A step whose files do not match its manifest
is skipped with a warning and kept (Orbax itself does not notice a flipped bit in an array). Files that others put beside
these (a copy that the user keeps, a drive's desktop.ini) are neither read nor deleted.
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

from fdl.files import to_json, write_json
from fdl.types import RunError

MANIFEST = "manifest.json"
_MOST_LOOKS = 10


@dataclasses.dataclass(frozen=True)
class Saved:
    """One checkpoint that verified: its step, its folder, and what its manifest says."""

    step: int
    path: Path
    progress: Mapping[str, Any]
    leaves: Mapping[str, tuple[str, list[int]]]


STRANGERS = ("desktop.ini", "thumbs.db", "icon\r")
"""Files that systems and cloud drives put into any folder, in small letters; also all whose name begins with a dot."""


def file_digests(folder: Path) -> dict[str, list[Any]]:
    """Compute size and sha256 of every file of a step, by its path in the folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.name != MANIFEST and not _is_strange(path.name)]
    return {str(path.relative_to(folder)): _digest(path) for path in paths if path.is_file()}


def _is_strange(name: str) -> bool:
    return name.startswith(".") or name.lower() in STRANGERS


def _digest(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def verify(folder: Path) -> Saved | str:
    """Return the checkpoint in `folder`, or a line that says what is wrong with it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sealed = manifest.pop("sha256")
        if sealed != hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest():
            return f"{folder / MANIFEST} was changed after it was written"
        if manifest["step"] != int(folder.name):
            return f"{folder / MANIFEST} is of step {manifest['step']}"
        for name, digest in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{path} is missing"
            if _digest(path) != digest:
                return f"{path} is changed"
        return Saved(int(folder.name), folder, manifest["progress"], manifest["leaves"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{folder / MANIFEST} cannot be read: {error}"


def seal(folder: Path, manifest: Mapping[str, object]) -> None:
    """Write the manifest with a digest over itself: from here on the step counts."""
    body = json.loads(
        to_json({name: value for name, value in manifest.items() if name != "sha256"})
    )  # as it will be when read back
    write_json(
        folder / MANIFEST, body | {"sha256": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}
    )


def reseal(folder: Path, progress: Mapping[str, object]) -> None:
    """Write the manifest again for the same arrays, with what has become known of their step."""
    seal(folder, json.loads((folder / MANIFEST).read_text()) | {"progress": dict(progress)})


def drop_older(folder: Path, keep: int) -> None:
    """Delete the steps before `folder`, except the newest `keep` and each one's `progress.best_step`."""
    sealed = [path for path in step_folders(folder.parent) if (path / MANIFEST).exists()]
    # A step later than this one was damaged and skipped: it must not push out the good ones.
    folders = [path for path in sealed if int(path.name) <= int(folder.name)]
    kept = {path.name for path in folders[-keep:]}
    for path in folders[-keep:]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept.add(str(json.loads((path / MANIFEST).read_text())["progress"]["best_step"]))
    for path in folders:
        if path.name not in kept:
            (path / MANIFEST).unlink()  # from here on it does not count, even if the deletion is interrupted
            shutil.rmtree(path)


def step_folders(root: Path) -> list[Path]:
    """List the folders of steps in order: those whose whole name is a number as fdl writes it."""
    if not root.is_dir():
        return []
    own = [
        path for path in root.iterdir() if path.name.isdecimal() and path.name == str(int(path.name)) and path.is_dir()
    ]
    return sorted(own, key=lambda path: int(path.name))


def is_sealed(folder: Path) -> bool:
    """Return whether a step was saved completely."""
    return (folder / MANIFEST).is_file()


def clean(root: Path) -> None:
    """Remove only what an interrupted save or deletion has left: steps without a manifest, half-written manifests."""
    for folder in step_folders(root):
        for left in folder.glob(f".{MANIFEST}.*.tmp"):
            left.unlink(missing_ok=True)
        if not is_sealed(folder) and is_own(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_own(folder: Path) -> bool:
    """Return whether a step's folder holds only what fdl writes: a manifest, and Orbax's "state", finished or begun."""
    inside = [path.name for path in folder.iterdir() if not _is_strange(path.name)]
    return all(name == MANIFEST or name.startswith("state") for name in inside)


def latest(root: Path) -> Saved | None:
    """Return the newest checkpoint that verifies, None where there is none at all.

    Raises:
        RunError: there are checkpoints and all are damaged. Nothing is deleted.
    """
    for _ in range(_MOST_LOOKS):
        folders = [folder for folder in step_folders(root) if is_sealed(folder)]
        for folder in reversed(folders):
            found = verify(folder)
            if isinstance(found, Saved):
                return found
            if is_sealed(folder):
                logging.warning("checkpoint %s passed over: %s", folder.name, found)
        if all(is_sealed(folder) for folder in folders):
            break  # otherwise the run is being trained, and replaces old steps by new ones meanwhile
    if folders:
        raise RunError(
            f"none of the {len(folders)} checkpoints in {root} verifies, nothing was deleted; "
            "bring the folder back from a copy or start in a new --workdir"
        )
    return None


def best(root: Path, newest: Saved) -> Saved:
    """Return the checkpoint the validation split chose, as `newest` records it; the next best if it is gone or damaged.

    Of two that were each the best when they were saved, the later one is better. Where none is left, it is `newest`.
    """
    step = newest.progress.get("best_step")
    if step in (None, newest.step):
        return newest
    chosen = at_step(root, step)
    if chosen is not None:
        return chosen
    earlier = [int(folder.name) for folder in step_folders(root) if int(folder.name) < newest.step]
    found = (at_step(root, number) for number in reversed(earlier))
    next_best = next((saved for saved in found if saved and saved.progress.get("best_step") == saved.step), newest)
    logging.warning(
        "the best checkpoint, step %s, is missing or damaged in %s: step %s takes its place", step, root, next_best.step
    )
    return next_best


def known_best(root: Path, newest: Saved) -> dict[str, Any]:
    """Return what a resume must correct in `newest`'s progress: {} where its best checkpoint exists, else the next best."""
    step = newest.progress.get("best_step")
    if step in (None, newest.step) or is_sealed(root / str(step)):
        return {}
    found = best(root, newest)
    own = found.progress.get("best_step") == found.step
    return {"best_step": found.step if own else None, "best": found.progress["best"] if own else None}


def at_step(root: Path, step: int) -> Saved | None:
    """Return the checkpoint of that step if it exists and verifies."""
    found = verify(root / str(step))
    return found if isinstance(found, Saved) else None


def read(root: Path, step: int) -> Saved:
    """Read the checkpoint of that step from its manifest, without verifying: another process has just done so."""
    manifest = json.loads((root / str(step) / MANIFEST).read_text())
    return Saved(step, root / str(step), manifest["progress"], manifest["leaves"])
