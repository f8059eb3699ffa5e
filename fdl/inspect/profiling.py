"""--profile and --dump_hlo: what the devices did in some steps, and the programs they were given."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from fdl.train.program import Program
from fdl.types import UserError


def parse(text: str) -> tuple[int, int]:
    """Parse "10:15" to (10, 15), the first and the last step of a trace.

    Raises:
        UserError: it is no such pair.
    """
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile={text}: give the first and the last step to trace, such as 10:15")
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def traced(steps: tuple[int, int] | None, path: Path) -> Iterator[Callable[[int, int], None]]:
    """Trace the calls that make one of `steps` (the first and the last; None: none) into `path`.

    The function yielded must be called with (start, end) before each call, which makes steps start ... end.

    The trace opens in Perfetto (ui.perfetto.dev reads perfetto_trace.json.gz) and in xprof.
    """
    first, last = steps or (0, -1)
    on, behind = False, 0

    def about_to(start: int, end: int) -> None:
        nonlocal on, behind
        wanted = start <= last and first <= end
        behind = 0 if wanted else behind + 1
        if wanted and not on:
            jax.profiler.start_trace(path, create_perfetto_trace=True)
            on = True
        elif on and behind == 2:  # by now the metrics of the last call to trace were read: it has ended
            jax.profiler.stop_trace()
            on = False

    try:
        yield about_to
    finally:
        if on:
            jax.profiler.stop_trace()


def dump(program: Program, folder: Path) -> list[Path]:
    """Write the training step before and after compilation as text; return the files written."""
    lowered, compiled = program.compiled.lowered, program.compiled.executable
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train.stablehlo.txt": lowered.as_text(), "train.hlo.txt": compiled.as_text(),
        "evaluate.hlo.txt": program.compiled.eval_step.as_text(),
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text or "")
    return [folder / name for name in files]
