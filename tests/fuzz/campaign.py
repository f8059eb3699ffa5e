"""What must hold whatever a user hands over: a result or one line that names the file; in time; nothing written elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fdl.types import UserError

SECONDS = 10
CHARACTERS = 1200


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        load: hands it to fdl.
        names: what an error must name, one of these.
        valid: whether it must load (True), must be refused (False) or may do either (None).
        check: looks at what was loaded, or at the error.
    """

    load: Callable[[], Any]
    names: tuple[str, ...]
    valid: bool | None = None
    check: Callable[[Any], None] = lambda result: None


Target = Callable[[np.random.Generator, Path], Case]


def run(target: Target, count: int, seed: int, root: Path, first: int = 0) -> dict[str, int]:
    """How many of the cases loaded and how many were refused; an AssertionError names the case that broke a promise."""
    seen = {"loaded": 0, "refused": 0}
    (root / "canary").write_text("unchanged")
    for number in range(first, first + count):
        rng = np.random.default_rng((seed, number))
        folder = root / "case"
        folder.mkdir()
        try:
            case = target(rng, folder)
            seen[_judge(case)] += 1
            assert sorted(path.name for path in root.iterdir()) == ["canary", "case"], "something was written elsewhere"
            assert (root / "canary").read_text() == "unchanged"
        except Exception as error:
            raise AssertionError(f"seed {seed}, case {number}: {type(error).__name__}: {error}") from error
        shutil.rmtree(folder)
    return seen


def _judge(case: Case) -> str:
    try:
        with time_limit():
            result = case.load()
    except UserError as error:
        text = str(error)
        assert case.valid is not True, f"a valid input is refused: {text}"
        assert text.isprintable(), f"not one line: {text!r}"
        assert len(text) <= CHARACTERS, f"{len(text)} characters"
        assert any(name in text for name in case.names), f"{case.names} is not named: {text}"
        case.check(error)
        return "refused"
    assert case.valid is not False, "a bad input is accepted"
    case.check(result)
    return "loaded"


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """fdl's cache in there, for what is unpacked."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
