"""--profile and --dump_hlo: what the devices did in some steps, and the programs they were given."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from fdl.program import Program
from fdl.types import UserError


def parse(text: str) -> tuple[int, int]:
    """ "10:15" -> (10, 15), the first and the last step of a trace.

    Raises:
        UserError: it is no such pair.
    """
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile={text}: give the first and the last step to trace, such as 10:15")
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def traced(steps: str, path: Path) -> Iterator[Callable[[int], None]]:
    """`about_to(step)` is to be called before each step is dispatched; the trace of `steps` ("10:15") goes to `path`.

    It opens in Perfetto (ui.perfetto.dev reads perfetto_trace.json.gz) and in xprof. An empty `steps` traces nothing.
    """
    first, last = parse(steps) if steps else (0, -1)
    on = False

    def about_to(step: int) -> None:
        nonlocal on
        if first <= step <= last and not on:
            jax.profiler.start_trace(path, create_perfetto_trace=True)
            on = True
        elif on and step > last + 1:  # by now the metrics of step `last` were read: it has ended
            jax.profiler.stop_trace()
            on = False

    try:
        yield about_to
    finally:
        if on:
            jax.profiler.stop_trace()


def dump(program: Program, folder: Path) -> list[Path]:
    """The training step as it was handed to the compiler and as it came back, as text; the files written."""
    resident = program.on_device is not None
    lowered, compiled = (program.lowered_stretch, program.stretch) if resident else (program.lowered, program.train)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train.stablehlo.txt": lowered.as_text(), "train.hlo.txt": compiled.as_text(),
        "evaluate.hlo.txt": program.evaluate.as_text(),
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text or "")
    return [folder / name for name in files]
