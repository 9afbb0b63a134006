"""A real service and the command pointed at it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.client.service import Service, running_service
from tidemill.cli.main import app

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service")) as started, started.working():
        yield started


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process: `run("jobs", "--json")`."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments, stdin=None: CliRunner().invoke(app, arguments, input=stdin)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command where no service is known."""
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TIDEMILL_ADDRESS", raising=False)
    monkeypatch.delenv("TIDEMILL_API_KEY", raising=False)
    return lambda *arguments, stdin=None: CliRunner().invoke(app, arguments, input=stdin)
