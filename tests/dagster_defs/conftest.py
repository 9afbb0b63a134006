"""A Dagster instance on disk, and a gateway whose feed the test writes."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_defs.lib.gateway import TidemillGateway
from tests.dagster_defs.daemon import Daemon
from tests.dagster_defs.fakes import API_KEY, FakeFeed, FakeGateway, serving
from tests.dagster_defs.processes import Dagster, running


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's own Tidemill or Dagster."""
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_DAGSTER_API_KEY", API_KEY)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path / "home"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite."""
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def feed() -> FakeFeed:
    return FakeFeed()


@pytest.fixture
def fake_gateway(feed: FakeFeed) -> FakeGateway:
    return FakeGateway(feed)


@pytest.fixture
def gateway(fake_gateway: FakeGateway) -> Iterator[TidemillGateway]:
    with serving(fake_gateway) as address:
        yield TidemillGateway(address=address, api_key=API_KEY, trace_url_template="http://traces/{trace_id}")


@pytest.fixture
def daemon(instance: dg.DagsterInstance, gateway: TidemillGateway) -> Daemon:
    return Daemon(instance, gateway)


@pytest.fixture(scope="session")
def live_feed() -> FakeFeed:
    """The feed that the real Dagster reads."""
    return FakeFeed()


@pytest.fixture(scope="session")
def live_address(live_feed: FakeFeed) -> Iterator[str]:
    with serving(FakeGateway(live_feed)) as address:
        yield address


@pytest.fixture(scope="session")
def dagster(tmp_path_factory: pytest.TempPathFactory, live_address: str) -> Iterator[Dagster]:
    """A real webserver and daemon that follow `live_feed`."""
    home = tmp_path_factory.mktemp("tidemill") / "dagster"
    with running(home, live_address, TIDEMILL_DAGSTER_TRACE_URL_TEMPLATE="http://traces/{trace_id}") as dagster:
        yield dagster
