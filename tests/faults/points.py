"""Failpoints: at the n-th call of a named function something happens. Set in a child, before the run begins."""

from __future__ import annotations

import dataclasses
import errno
import functools
import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Point:
    """Where and what.

    Attributes:
        target: "module:name" or "module:Class.name" of the function that is wrapped.
        what: "kill", "term", "int", "stall" (a second), "enospc", "eio", "erofs", or "half": half of the text that the
            call was to write, then a kill.
        nth: at which of the calls that match, from 1.
        match: only calls with this in one of their arguments count.
        after: when the call has been made, not before.
    """

    target: str
    what: str = "kill"
    nth: int = 1
    match: str = ""
    after: bool = False


def arm(fields: dict[str, Any]) -> None:
    """Wrap the function of the point with these fields."""
    point = Point(**fields)
    module, _, name = point.target.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    seen = 0

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        mine = point.match in " ".join(map(str, (*args, *kwargs.values()))) if point.match else True
        seen += mine
        now = mine and seen == point.nth
        if now and not point.after:
            _strike(point, args)
        result = original(*args, **kwargs)
        if now and point.after:
            _strike(point, args)
        return result

    setattr(owner, name, wrapped)


def _strike(point: Point, args: tuple[Any, ...]) -> None:
    numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
    if point.what in numbers:
        os.kill(os.getpid(), numbers[point.what])
    elif point.what == "stall":
        time.sleep(1)
    elif point.what == "half":
        path, text = args
        Path(path).write_text(text[: len(text) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        number = {"enospc": errno.ENOSPC, "eio": errno.EIO, "erofs": errno.EROFS}[point.what]
        raise OSError(number, os.strerror(number), str(args[0]) if args else None)


def note_rows(path: str) -> None:
    """Write down which examples each step is fed: a line "pid step row row ..." for each."""
    from fdl.data.pipeline import Stream

    original = Stream.rows

    def rows(self: Stream, step: int) -> Any:
        found = original(self, step)
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {step} {' '.join(map(str, found))}\n")
        return found

    Stream.rows = rows  # type: ignore[method-assign]
