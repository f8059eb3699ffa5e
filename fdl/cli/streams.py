"""Standard streams that take every letter, and that a run outlives when whoever reads them goes away."""

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

    A reader that has gone (`| head`, a broken connection), a full disk behind it or a terminal that was hung up must not
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
    """Make sys.stdout and sys.stderr last, and write letters that the terminal's encoding lacks as escapes.

    Args:
        lost: is given the error with which standard output was lost, once; from then on it is /dev/null.
    """

    def lose_output(error: OSError) -> None:
        _point_at_nothing(1)
        lost(error)

    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:  # or the next file that is opened would get the number, and be written to as the stream
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
