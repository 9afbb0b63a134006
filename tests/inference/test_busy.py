"""Busy time: what the chunks are given sums to what the engine was busy."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.busy import BusyMeter, Stay

STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "take"]), st.integers(0, 5), st.floats(0, 1000)), max_size=60
)


@settings(deadline=None)
@given(STEPS)
def test_shares_sum_to_the_busy_time(steps: list[tuple[str, int, float]]) -> None:
    now, taken, inside_seconds = [0.0], 0.0, 0.0
    meter = BusyMeter(lambda: now[0])
    inside: list[Stay] = []
    everyone: list[Stay] = []
    for verb, which, pause in steps:
        if verb == "enter":
            inside.append(meter.enter())
            everyone.append(inside[-1])
        elif verb == "leave" and inside:
            inside.pop(which % len(inside)).leave()
        elif everyone:
            taken += everyone[which % len(everyone)].take()
        now[0] += pause
        inside_seconds += pause if inside else 0.0
    taken += sum(stay.take() for stay in everyone)
    assert meter.busy_seconds == pytest.approx(inside_seconds)
    assert taken == pytest.approx(meter.busy_seconds)
    assert all(stay.take() == 0 for stay in everyone), "nothing is given twice"


def test_time_is_divided_among_those_inside_at_the_moment() -> None:
    now = [100.0]
    meter = BusyMeter(lambda: now[0])
    first = meter.enter()
    now[0] += 4
    second = meter.enter()
    now[0] += 2
    assert (first.take(), second.take()) == (5.0, 1.0)
    first.leave()
    first.leave()
    now[0] += 3
    assert (first.take(), second.take()) == (0.0, 3.0)
    second.leave()
    now[0] += 50
    assert second.take() == 0.0
    assert meter.busy_seconds == 9.0


def test_nothing_is_lost_while_the_clock_runs_on() -> None:
    ticks = itertools.count()
    meter = BusyMeter(lambda: float(next(ticks)))
    first, second = meter.enter(), meter.enter()
    taken = first.take()
    first.leave()
    second.leave()
    assert taken + first.take() + second.take() == meter.busy_seconds


def test_a_clock_that_steps_back_takes_nothing_away() -> None:
    now = [10.0]
    meter = BusyMeter(lambda: now[0])
    stay = meter.enter()
    now[0] = 5.0
    assert stay.take() == 0.0
    now[0] = 6.0
    assert stay.take() == 1.0
