"""The random walk finds every planted fault: a test of the tests."""

from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.scheduler.life_machine import SchedulerMachine
from tests.scheduler.planted import FAULTS

# Nothing is shrunk: a fault has to be found, not explained.
SEARCH = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def test_there_are_enough_faults():
    assert len(FAULTS) >= 15


def test_without_a_fault_nothing_is_found():
    run_state_machine_as_test(SchedulerMachine, settings=settings(SEARCH, max_examples=20))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str):
    with ExitStack() as planted:
        for each in FAULTS[name]():
            planted.enter_context(each)
        with pytest.raises((Exception, pytest.fail.Exception)):  # a fault may show as any failure
            run_state_machine_as_test(SchedulerMachine, settings=SEARCH)
