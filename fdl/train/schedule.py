"""When each thing happens: arithmetic on step numbers, without a device."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from fdl.types import is_due

MAX_STEPS_PER_CALL = 1000


@dataclasses.dataclass(frozen=True)
class Call:
    """Steps `first` ... `last` in one dispatch.

    Attributes:
        excluded: the one step is left out: its batch is skipped and only its number counts.
    """

    first: int
    last: int
    excluded: bool = False

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What is due at which step of one start of a run.

    Attributes:
        start: the step this start begins after.
        total: the last step of the run.
        every: steps between two of "log", "eval", "save" and "sample"; 0: never.
        updates: in rising order, the steps after which the state is updated between two steps.
        one_by_one: a batch is fed for every step, so a call is one step.

    >>> schedule = Schedule(start=0, total=10, every={"eval": 4, "save": 5}, updates=(), one_by_one=False)
    >>> [sorted(schedule.due(step, evaluated_at=0)) for step in (3, 4, 5, 10)]
    [[], ['eval'], ['save'], ['eval', 'save']]
    >>> schedule.next_call(4, excluded=())
    Call(first=5, last=5, excluded=False)
    >>> schedule.next_call(5, excluded=())
    Call(first=6, last=8, excluded=False)
    """

    start: int
    total: int
    every: Mapping[str, float]
    updates: tuple[int, ...]
    one_by_one: bool

    def due(self, step: int, evaluated_at: int) -> frozenset[str]:
        """Name what must be done before the next step; nothing where all of it is done (`evaluated_at` is this step).

        At the last step everything that happens at all is due.
        """
        if evaluated_at == step:
            return frozenset()
        waits = {name: self.every.get(name, 0) for name in ("eval", "save", "sample")}
        return frozenset(
            name for name, period in waits.items() if is_due(step, period) or (step == self.total and period > 0)
        )

    def next_call(self, step: int, excluded: Collection[int]) -> Call:
        """Choose the longest call after `step` that passes over nothing due and no excluded step.

        The first step of a start is made alone: it is not part of the measured rate.
        """
        if step + 1 in excluded:
            return Call(step + 1, step + 1, excluded=True)
        if self.one_by_one or step == self.start:
            return Call(step + 1, step + 1)
        count = steps_until_due(step, self.total, list(self.every.values()), excluded)
        following = bisect.bisect_right(self.updates, step)
        end = min([step + count, *self.updates[following : following + 1]])
        return Call(step + 1, end)

    def is_over(self, evaluated_at: int, stopped: str) -> bool:
        """Return whether nothing is left. A run that was stopped in its last evaluation still has that one to make."""
        finished = self.start == self.total and evaluated_at == self.start
        return self.start > self.total or finished or bool(stopped)


def steps_until_due(step: int, total: int, periods: Sequence[float], excluded: Collection[int] = ()) -> int:
    """Count the steps from `step` to the next end of a period (0: none), before the next excluded step, or to `total`.

    At least 1, at most MAX_STEPS_PER_CALL.

    >>> steps_until_due(0, total=100, periods=[7, 2.5])
    2
    """
    ends = [total, step + MAX_STEPS_PER_CALL, *(other - 1 for other in excluded if other > step + 1)]
    for period in periods:
        if period > 0:
            number = int(step / period) + 1
            ends += [end for end in (round(number * period), round((number + 1) * period)) if end > step][:1]
    return max(1, min(ends) - step)
