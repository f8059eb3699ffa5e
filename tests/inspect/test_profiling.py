"""Which calls of the loop --profile traces: those that hold one of its steps, and no others."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from fdl.inspect import profiling
from fdl.types import UserError


@pytest.mark.parametrize(
    ("steps", "calls", "traced"),
    [
        ((3, 4), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7)], (3, 6)),  # step 4 has ended when 6 is next
        ((10, 15), [(1, 1), (2, 50), (51, 100), (101, 150), (151, 200)], (2, 101)),  # many steps in one call
        ((50, 51), [(1, 1), (2, 50), (51, 100), (101, 150), (151, 200)], (2, 151)),
        ((90, 95), [(1, 1), (2, 50), (51, 100)], (51, None)),  # the run is over before
        ((300, 400), [(1, 1), (2, 50)], None),
        (None, [(1, 1), (2, 50)], None),
    ],
)
def test_the_calls_that_hold_a_step_are_traced(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    steps: tuple[int, int] | None,
    calls: list[tuple[int, int]],
    traced: tuple[int, int | None] | None,
) -> None:
    now, seen = [0], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path, **_: seen.append(("on", now[0])))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append(("off", now[0])))
    with profiling.traced(steps, tmp_path) as about_to:
        for first, last in calls:
            now[0] = first
            about_to(first, last)
        now[0] = None
    assert seen == ([] if traced is None else [("on", traced[0]), ("off", traced[1])])


@pytest.mark.parametrize("text", ["5", "0:4", "6:5", "a:b", "1:2:3", "-1:4"])
def test_what_is_no_pair_of_steps_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 10:15"):
        profiling.parse(text)
