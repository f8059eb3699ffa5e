"""TensorBoard's event files, cut back to a step without being rewritten.

A file is a sequence of records: a length (8 bytes, little-endian), a checksum of it (4), the event (a protocol buffer) and a
checksum of that (4). Source: https://github.com/tensorflow/tensorboard, backend/event_processing/event_file_loader.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_LENGTH, _AROUND = struct.Struct("<Q"), 16  # bytes of a record that are not the event


def event_files(folder: Path) -> list[Path]:
    """List the event files that fdl wrote, in order. A user's own files in the folder are left out."""
    return sorted(folder.glob("events.out.tfevents.*.fdl-*"), key=_number) if folder.is_dir() else []


def next_suffix(folder: Path) -> str:
    """Return how the next file's name ends: with a number, because two starts may fall into one second."""
    return f".fdl-{_number((event_files(folder) or [Path('.fdl-0')])[-1]) + 1}"


def _number(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def cut_events(folder: Path, upto: int) -> int:
    """Remove every event after step `upto`, and those of the last step that is left, which a kill may have cut in two.

    A kill during this leaves the newest files too short, but never a gap.

    Returns:
        The step that was removed last: rows from it on are to be shown (again). -1 where nothing is left.
    """
    first = -1
    for path in reversed(event_files(folder)):  # the newest first: steps only grow from file to file
        steps = list(_steps(path))
        kept = [step for _, step in steps if 0 <= step <= upto]
        if not kept:
            path.unlink()
            continue
        first = kept[-1]
        os.truncate(path, next(start for start, step in steps if step >= first))
        if first == kept[0]:
            path.unlink()  # only its header is left
        break
    return first


def _steps(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (where a record begins, its step), -1 for a record without figures; a half-written last one ends the file."""
    from tensorboardX.proto.event_pb2 import Event

    content = path.read_bytes()
    at = 0
    while at + _AROUND <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        end = at + _AROUND + length
        if end > len(content):
            return
        event = Event.FromString(content[at + 12 : end - 4])
        yield at, event.step if event.HasField("summary") else -1
        at = end
