"""Hypothesis settings (the machines that run this are shared, so timing is no criterion), and a Redis to share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.scheduler.redis_server import RedisServer

settings.register_profile("scheduler", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scheduler")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that leave it alive; each takes a ledger name of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
