"""When what is due, as arithmetic: held against counting the steps one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fdl.train.schedule import MAX_STEPS_PER_CALL, Call, Schedule
from fdl.types import is_due

PERIODS = st.one_of(st.just(0.0), st.floats(1, 40), st.integers(1, 40).map(float))
SCHEDULES = st.builds(
    Schedule,
    start=st.integers(0, 30),
    total=st.integers(30, 90),
    every=st.fixed_dictionaries(dict.fromkeys(("log", "eval", "save", "sample"), PERIODS)),
    updates=st.sets(st.integers(0, 89)).map(lambda steps: tuple(sorted(steps))),
    one_by_one=st.booleans(),
)


def calls_of(schedule: Schedule, excluded: set[int]) -> list[Call]:
    calls, step = [], schedule.start
    while step < schedule.total:
        calls.append(schedule.next_call(step, excluded))
        step = calls[-1].last
    return calls


@given(SCHEDULES, st.sets(st.integers(1, 90), max_size=5))
def test_calls_cover_every_step_once_and_pass_nothing(schedule: Schedule, excluded: set[int]) -> None:
    calls = calls_of(schedule, excluded)
    made = [step for call in calls for step in range(call.first, call.last + 1)]
    assert made == list(range(schedule.start + 1, schedule.total + 1))
    for call in calls:
        assert call.count <= MAX_STEPS_PER_CALL
        assert call.excluded == (call.first in excluded)
        for step in range(call.first, call.last):  # inside a call the host does nothing
            assert not any(is_due(step, period) for period in schedule.every.values())
            assert step not in schedule.updates
        assert call.count == 1 or not excluded & set(range(call.first, call.last + 1))


@given(SCHEDULES)
def test_the_first_step_of_a_start_and_fed_steps_are_made_alone(schedule: Schedule) -> None:
    calls = calls_of(schedule, set())
    assert all(call.count == 1 for call in calls[: len(calls) if schedule.one_by_one else 1])


@given(SCHEDULES, st.integers(0, 90))
def test_what_is_due_is_due_once_and_all_of_it_at_the_end(schedule: Schedule, step: int) -> None:
    due = schedule.due(step, evaluated_at=-1)
    for name in ("eval", "save", "sample"):
        period = schedule.every[name]
        last = step == schedule.total and period > 0
        assert (name in due) == (last or (step > 0 and period > 0 and round(round(step / period) * period) == step))
    assert not schedule.due(step, evaluated_at=step)


def test_a_run_is_over_at_its_last_step_once_that_is_evaluated_or_when_it_stopped_itself() -> None:
    def over(start: int, evaluated_at: int, stopped: str = "") -> bool:
        return Schedule(start, 10, {}, (), one_by_one=True).is_over(evaluated_at, stopped)

    assert over(10, 10)
    assert over(5, 5, "No better loss")
    assert over(11, 11), "a run that was made shorter"
    assert not over(10, 5), "told to stop in its last evaluation"
    assert not over(5, 5)
