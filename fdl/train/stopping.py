"""What ends a run from outside: signals that ask it to stop, processes that die, and a watchdog for a run that hangs."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from fdl.distributed import processes
from fdl.types import RunError, UserError

HUNG = 124
STARTUP_SECONDS = 600.0
"""Until the first sign of life the watchdog allows at least this long: restoring and the first step are slow."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """The run was asked to stop and has saved everything; like KeyboardInterrupt, no `except Exception` catches it.

    Attributes:
        signum: the signal.
        hint: how to resume.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum, self.hint = signum, "nothing was written"

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}: {self.hint}"


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Yield `asked()`: the first SIGTERM, SIGINT or SIGHUP received, else 0. A second one ends the process at once.

    SIGHUP is left alone where it is ignored, as `nohup` asks for.
    """
    seen: list[int] = []

    def note(signum: int, _frame: object) -> None:
        if seen:
            os._exit(128 + signum)
        seen.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0  # only the main thread may set handlers; a caller's thread keeps its own
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    before = {signum: signal.signal(signum, note) for signum in _SIGNALS if signum != signal.SIGHUP or not ignored}
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for signum, handler in before.items():
            # None: the handler was not set from Python (jax.distributed sets one for SIGTERM) and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def leave_if(asked: Callable[[], int]) -> None:
    """Raise Interrupted if the run was asked to stop."""
    signum = asked()
    if signum:
        raise Interrupted(signum)


@contextlib.contextmanager
def watched(limit: float, missing: Callable[[], list[str]]) -> Iterator[Callable[[], None]]:
    """Watch a block that calls the yielded `alive()` whenever it has finished something.

    Without a call for `limit` seconds (0: for ever; at first STARTUP_SECONDS, if that is longer) the stacks of all threads
    are printed and the process exits with 124. Time in which this process did not run, because it or its machine was
    suspended, does not count. When a peer of `missing()` has died, the process says which and exits with 1, even where the
    main thread is stuck in a collective operation that will never end.

    Raises:
        RunError: in place of the runtime's error about a broken connection, where a peer has died.
    """
    last, begun, over = [time.monotonic()], threading.Event(), threading.Event()

    def watch() -> None:
        gone_since: float | None = None
        pause, now = min(1.0, limit / 4 or 1.0), time.monotonic()
        while not over.wait(pause):
            before, now = now, time.monotonic()
            # This thread only sleeps: for as long as it overslept, the process did not run.
            last[0] = min(now, last[0] + max(0.0, now - before - pause))
            allowed = limit if begun.is_set() else max(limit, STARTUP_SECONDS)
            if limit and now - last[0] > allowed:
                _say(
                    f"nothing was finished for {allowed:g} s: this process or one it waits for hangs; its stacks are below; "
                    "the same command resumes the run (--watchdog sets the limit)"
                )
                faulthandler.dump_traceback(all_threads=True)
                if not processes.alone() and processes.is_first():
                    time.sleep(3)  # when it ends, all end: let the others print their stacks first
                os._exit(HUNG)
            gone = missing()
            gone_since = (gone_since or now) if gone else None
            if gone_since and now - gone_since > 5:  # until then the main thread may report it itself
                _say(_farewell(gone))
                os._exit(1)

    def alive() -> None:
        last[:] = [time.monotonic()]
        begun.set()

    thread = threading.Thread(target=watch, name="fdl-watchdog", daemon=True)
    thread.start()
    try:
        with _last_words(missing):
            yield alive
    except (UserError, RunError):
        raise
    except Exception as error:
        gone = _gone_by_now(missing)
        if gone:
            raise RunError(_farewell(gone)) from error
        raise
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _last_words(missing: Callable[[], list[str]]) -> Iterator[None]:
    """Name the dead process and exit 1 before JAX's client aborts this one, from its own thread, when process 0 dies.

    A Python signal handler would never run. This one is called by abort() itself; if it finds nobody missing, the abort
    proceeds.
    """
    if processes.alone():
        yield
        return

    def say(_signum: int) -> None:
        gone = _gone_by_now(missing)
        if gone:
            _say(_farewell(gone))
            os._exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(say)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    before = libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)


def _gone_by_now(missing: Callable[[], list[str]]) -> list[str]:
    """Call `missing()` repeatedly for a while: the connection breaks a moment before the lock is gone."""
    for _ in range(20):
        gone = missing()
        if gone or processes.alone():
            return gone
        time.sleep(0.1)
    return []


def _farewell(gone: list[str]) -> str:
    return f"{' and '.join(gone)} has died; the same command, started for every process again, resumes the run"


def _say(text: str) -> None:
    print(f"fdl: error: {text}", file=sys.stderr, flush=True)
