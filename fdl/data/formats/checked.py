"""Pictures that are decoded batch by batch, each read once before training: no run meets a damaged one in its middle.

$XDG_CACHE_HOME/fdl/checked/<digest>.json    what was found in one folder, by the names, sizes and times of its files
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from fdl.data.formats import images
from fdl.environment import cache_dir
from fdl.files import write_text
from fdl.types import RunError, UserError

Found = tuple[dict[int, str], list[int]]
"""({place in its group: what is wrong with the picture}, a digest of the bytes of each)."""


def check_all(
    read: Callable[[int], bytes], groups: Sequence[Hashable], identities: Sequence[str], where: str
) -> tuple[dict[int, str], np.ndarray]:
    """Return ({number: what is wrong} of the pictures that cannot be decoded, int64 [N] digests of all files' bytes).

    What is found is kept in fdl's cache, group by group: later only groups that have changed are read again.

    Args:
        read: number of a picture -> its file's bytes.
        groups: of each picture, which others it is kept with, such as its folder.
        identities: of each picture, what changes when its file does, such as its name, size and time.
        where: what to call all of them in the log.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    kept = {group: _kept(images.decoder_version(), *(identities[i] for i in held)) for group, held in members.items()}
    known = {group: found for group, path in kept.items() if (found := _load(path, len(members[group])))}
    new = [number for group, held in members.items() if group not in known for number in held]
    digests = np.zeros(len(groups), np.int64)

    def check(place: int) -> None:
        data = read(new[place])
        digests[new[place]] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)
        images.decode(data)

    if new:
        logging.info("reading %s pictures of %s once, to find damaged ones", f"{len(new):,}", where)
    wrong = {new[place]: reason for place, reason in images.try_each(check, len(new)).items()}
    for group, held in members.items():
        if group in known:
            reasons, digests[held] = known[group]
            wrong |= {held[place]: reason for place, reason in reasons.items()}
        else:
            reasons = {place: wrong[number] for place, number in enumerate(held) if number in wrong}
            _save(kept[group], (reasons, digests[held].tolist()))
    return dict(sorted(wrong.items())), digests


def _kept(*identities: str) -> Path:
    digest = hashlib.sha256("\0".join(identities).encode(errors="surrogateescape")).hexdigest()
    return cache_dir() / "checked" / f"{digest[:32]}.json"


def _load(path: Path, count: int) -> Found | None:
    """Load what was found; None where it is absent or incomplete: it is found out again."""
    try:
        wrong, digests = json.loads(path.read_text())
        found = {int(place): str(reason) for place, reason in wrong.items()}
        return (found, [int(digest) for digest in digests]) if len(digests) == count else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _save(path: Path, found: Found) -> None:
    with contextlib.suppress(UserError, RunError):  # a cache that cannot be written costs the time of reading again
        write_text(path, json.dumps(found), durable=False)
