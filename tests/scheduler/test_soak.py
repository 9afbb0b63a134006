"""The state machines of `test_machine`, for much longer: `make soak`."""

import pytest
from hypothesis import HealthCheck, settings

from tests.scheduler.test_machine import RedisMachine, SchedulerMachine, SqliteMachine

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

LONG = settings(
    max_examples=5000,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    print_blob=True,
)


class LongMachine(SchedulerMachine):
    """In memory."""


class LongSqliteMachine(SqliteMachine):
    """On disk, reopened as the rules say."""


class LongRedisMachine(RedisMachine):
    """In a real Redis."""


TestLongMachine = LongMachine.TestCase
TestLongMachine.settings = LONG
TestLongSqliteMachine = LongSqliteMachine.TestCase
TestLongSqliteMachine.settings = settings(LONG, max_examples=1000)
TestLongRedisMachine = LongRedisMachine.TestCase
TestLongRedisMachine.settings = settings(LONG, max_examples=1000)
