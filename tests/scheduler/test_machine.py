"""The random walk of `life_machine` over each ledger."""

import atexit
import tempfile
import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings

from services.scheduler.ledger import Ledger, RedisLedger, SqliteLedger
from services.scheduler.ledger.redis_address import parse
from tests.scheduler.life_machine import SchedulerMachine
from tests.scheduler.redis_server import RedisServer


class SqliteMachine(SchedulerMachine):
    def make_ledger(self) -> Ledger:
        return SqliteLedger(Path(self.folder.name) / "ledger.sqlite3")

    def reopen_ledger(self) -> Ledger:
        self.ledger.close()
        return self.make_ledger()


class RedisMachine(SchedulerMachine):
    """Every example has a ledger name of its own in one Redis, which ends with the tests."""

    server: RedisServer | None = None

    def make_ledger(self) -> Ledger:
        if RedisMachine.server is None:
            RedisMachine.server = RedisServer(Path(tempfile.mkdtemp()))
            RedisMachine.server.start()
            atexit.register(RedisMachine.server.kill)
        return RedisLedger(parse(RedisMachine.server.url(uuid.uuid4().hex)))

    def reopen_ledger(self) -> Ledger:
        self.ledger.close()
        assert isinstance(self.ledger, RedisLedger)
        return RedisLedger(self.ledger.address)


_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

TestMemoryMachine = SchedulerMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=_QUIET
)
TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)
TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)
