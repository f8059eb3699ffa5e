"""The steps between which updates are made: the list that cuts calls names the steps at which one is due."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from fdl.experiment import Update
from fdl.train import updates
from fdl.types import Duration, is_due


@dataclasses.dataclass(frozen=True)
class Run:
    """The part of a program that counts steps."""

    total_steps: int
    batch_size: int
    num_examples: int
    experiment: Any

    def in_steps(self, duration: Duration) -> float:
        return duration.in_steps(self.batch_size, self.num_examples, self.total_steps)


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(1, 300), batch_size=st.integers(1, 64), num_examples=st.integers(64, 500),
    timing=st.lists(
        st.tuples(
            st.sampled_from(["0", "1", "7", "10%", "2epochs"]),
            st.sampled_from(["0", "1", "3", "0.37epochs", "7%", "130examples", "0.5epochs"]),
        ),
        max_size=3,
    ),
)  # fmt: skip
def test_each_due_step_is_listed_and_no_other(
    total: int, batch_size: int, num_examples: int, timing: list[tuple[str, str]]
) -> None:
    made = tuple(Update(start=cast(Any, start), every=cast(Any, every)) for start, every in timing)
    run = Run(total, batch_size, num_examples, types.SimpleNamespace(updates=made))
    due = {
        step
        for step in range(total)
        for update in made
        for start in [round(run.in_steps(Duration.parse(update.start)))]
        if step == start or is_due(step - start, run.in_steps(Duration.parse(update.every)))
    }
    assert updates.update_steps(cast(Any, run)) == tuple(sorted(due))
