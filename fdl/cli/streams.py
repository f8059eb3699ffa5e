"""Standard streams that accept every character, and whose reader may disappear without ending the run."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

Lost = Callable[[OSError], None]


class _Lasting(io.FileIO):
    """A standard stream whose writes never fail: what cannot be written is dropped, and `lost` is called.

    A reader that has gone (`| head`, a broken connection), a full disk or a terminal that was closed must not
    end hours of training, wherever in the program the line was printed.
    """

    def __init__(self, number: int, lost: Lost) -> None:
        super().__init__(number, "w", closefd=False)
        self._lost = lost

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self._lost(error)
            return memoryview(data).nbytes


def keep_writing(lost: Lost) -> None:
    """Make writes to sys.stdout and sys.stderr never fail; characters the terminal's encoding lacks become escapes.

    Args:
        lost: called once, with the error by which standard output was lost; from then on it is /dev/null.
    """

    def lose_output(error: OSError) -> None:
        _point_at_nothing(1)
        lost(error)

    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:  # otherwise the next file opened would get this number, and the stream would write into it
        _point_at_nothing(number)
    for number, name, lose in ((1, "stdout", lose_output), (2, "stderr", lambda error: _point_at_nothing(2))):
        before = getattr(sys, name)
        raw = _Lasting(number, lose)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), before.encoding if before else "utf-8", "backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )  # fmt: skip
        setattr(sys, name, stream)
    if 1 in closed:
        lost(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _point_at_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
