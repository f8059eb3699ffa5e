"""The file of weights that `init_from` names: a path, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fdl.data.formats.download import sha256_of
from fdl.data.splits import Request
from fdl.types import UserError, one_line, printable

HUB = "hf:"
FILE = "model.safetensors"
"""What a repository's weights are called, timm's among them."""
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_weights(name: str, request: Request) -> Path:
    """Return the file that `init_from` names; of several names, separated by " | ", the first that can be had.

    Args:
        name: a path, relative to `request.data_dir` if it is there, else to the current folder; or "hf:OWNER/NAME" with
            "@REVISION" (a commit, a tag or a branch), fetched once and kept in the hub's own cache.
        request: where to look; `offline` never tries the network.

    Raises:
        UserError: none can be had; the line says why of each.
    """
    reasons = []
    for each in filter(None, map(str.strip, name.split("|"))):
        try:
            return _from_hub(each, request.offline) if each.startswith(HUB) else _from_disk(each, request)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(f"init_from={printable(name)}: {'; '.join(reasons) or 'it names no file'}")


def _from_disk(name: str, request: Request) -> Path:
    found = request.find(name)
    if found is None:
        where = f"in {request.data_dir} nor here" if request.data_dir else "here, and no --data_dir is given"
        raise UserError(f"there is no file {printable(name)}, neither {where}")
    return found


def _from_hub(name: str, offline: bool) -> Path:
    """Fetch a repository's weights, and compare the file with the sha256 that the hub has on record."""
    match = _REPOSITORY.fullmatch(name.removeprefix(HUB))
    if match is None:
        raise UserError(f"{printable(name)}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    repository, revision = match[1], match[2]
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{name} needs the package huggingface_hub; pip install 'fdl[hub]'") from None
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        path = huggingface_hub.hf_hub_download(repository, FILE, revision=revision, local_files_only=offline)
    except Exception as error:  # the library's own errors, the network's, and the disk's
        how = "not in the hub's cache, and the network may not be used (offline)" if offline else _reason(error)
        raise UserError(f"{name} cannot be had: {how}") from error
    # The cache names what it holds by the content's sha256 (of large files), and a snapshot's folder by its commit.
    kept, commit = Path(path).resolve(), Path(path).parent.name
    if _SHA256.fullmatch(kept.name) and sha256_of(kept) != kept.name:
        raise UserError(
            f"{name}: {kept} is not the file that the hub has (its sha256 differs); delete it, it is fetched again"
        )
    return Path(path) if revision == commit else _said(Path(path), name, commit)


def _said(path: Path, name: str, commit: str) -> Path:
    from absl import logging

    logging.warning("%s is commit %s; to have the same weights for ever: hf:...@%s", name, commit, commit)
    return path


def _reason(error: Exception) -> str:
    """Say in a few words what the library says in many."""
    return f"{type(error).__name__}: {one_line(error, 160)}"
