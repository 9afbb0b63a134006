"""One service for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.client.service import Service, running_service
from tidemill.client import Client


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as started, started.working():
        yield started


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as opened:
        yield opened
