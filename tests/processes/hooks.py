"""What can be done to a process before it runs: each is called in the child, with the words that follow its name."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOREVER = 3600.0


def stuck_feed(step: str) -> None:
    """The feed never hands over the batch of that step."""
    from fdl.data import pipeline

    feed = pipeline.feed

    def slow(kind: Any, arrays: Any, stream: Any, start: int, stop: int) -> Any:
        for number, batch in enumerate(feed(kind, arrays, stream, start, stop), start):
            if number == int(step):
                time.sleep(FOREVER)
            yield batch

    pipeline.feed = slow


def stuck_save(nth: str) -> None:
    """The file system hangs in the nth save, behind the loop."""
    from fdl.checkpoint import manifest

    digests, calls = manifest.file_digests, iter(range(1_000_000))

    def slow(folder: Path) -> Any:
        if folder.parent.name == "checkpoints" and not (folder / manifest.MANIFEST).exists():
            time.sleep(FOREVER if next(calls) == int(nth) else 0)
        return digests(folder)

    manifest.file_digests = slow


def stuck_evaluation(batches: str) -> None:
    """An evaluation never gets its batch of that number, counted over the whole run; number 0 is the one it is compiled for."""
    from fdl.data import pipeline

    padded, calls = pipeline.padded_batches, iter(range(1_000_000))

    def slow(*args: Any) -> Any:
        for batch in padded(*args):
            time.sleep(FOREVER if next(calls) == int(batches) else 0)
            yield batch

    pipeline.padded_batches = slow


def note_rows(path: str) -> None:
    """Write down which examples each step was fed by this process: JSON lines of [step, rows]."""
    from fdl.data import pipeline

    feed = pipeline.feed

    def noting(kind: Any, arrays: Any, stream: Any, start: int, stop: int) -> Any:
        with open(path, "a") as file:
            for number, batch in enumerate(feed(kind, arrays, stream, start, stop), start):
                file.write(json.dumps([number, stream.rows(number).tolist()]) + "\n")
                file.flush()
                yield batch

    pipeline.feed = noting


def other_data() -> None:
    """This process finds other data than the rest."""
    _splits(lambda splits: dataclasses.replace(splits, sha256="of something else"))


def other_code() -> None:
    """This process has another version of the training step."""
    from fdl.train.compiled import Compiled

    Compiled.sha256 = property(lambda compiled: "of something else")


def impatient() -> None:
    """Wait a second, no more, for a process of an earlier start."""
    from fdl.distributed import presence

    presence.PRESENT_SECONDS = 1.0


def other_disk(there: str) -> None:
    """The run directory is on a disk of this process's own: it does not see `there`."""
    from fdl.distributed import processes

    is_shared = processes.check_shared
    processes.check_shared = lambda folder: is_shared(Path(there) / "elsewhere")


def _splits(change: Callable[[Any], Any]) -> None:
    from fdl.data import pipeline

    load = pipeline.load

    def changed(*args: Any) -> Any:
        data = load(*args)
        return dataclasses.replace(data, splits=change(data.splits))

    pipeline.load = changed


def no_report() -> None:
    """Leave out the page at the end, which needs more time than the rest of a short run."""
    from fdl.report import report

    report.write_report = lambda path, *_: path / "report.html"


def note_restored(path: str) -> None:
    """Write down the digest of the state that the loop begins with."""
    from fdl.checkpoint import saving
    from fdl.train import loop

    restore = loop.restore

    def noting(program: Any, root: Path) -> Any:
        state, progress = restore(program, root)
        digest = saving.state_sha256(state)
        if not Path(path).exists():
            Path(path).write_text(digest)
        return state, progress

    loop.restore = noting
