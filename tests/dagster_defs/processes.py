"""Dagster's real webserver and daemon, started as `tidemill up` starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dagster_defs.fakes import API_KEY

ROOT = Path(__file__).parents[2]
START_SECONDS = 240


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Poll `condition` until it holds; fail with `what` after `seconds`."""
    end = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds} s"
        tick.wait(0.2)


@dataclass(frozen=True)
class Dagster:
    """A webserver and a daemon on one home."""

    url: str
    home: Path

    def graphql(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def materializations(self, partition: str) -> list[dict[str, Any]]:
        data = self.graphql(_MATERIALIZATIONS, dataset=partition)
        return data["assetOrError"].get("assetMaterializations", [])

    def stale(self, partition: str) -> tuple[str, list[str]]:
        """Stale status of the partition of `outputs`, and why."""
        node = self.graphql(_STALE, dataset=partition)["assetNodeOrError"]
        return node["staleStatus"], [cause["reason"] for cause in node["staleCauses"]]

    def daemon_is_healthy(self) -> bool:
        return self.graphql(_DAEMON)["instance"]["daemonHealth"]["daemonStatus"]["healthy"] is True


_MATERIALIZATIONS = """query ($dataset: String!) { assetOrError(assetKey: {path: ["outputs"]}) { ... on Asset {
  assetMaterializations(partitions: [$dataset], limit: 1000) { partition timestamp tags { key value }
    metadataEntries { label __typename ... on UrlMetadataEntry { url } } } } } }"""

_STALE = """query ($dataset: String!) { assetNodeOrError(assetKey: {path: ["outputs"]}) { ... on AssetNode {
  staleStatus(partition: $dataset) staleCauses(partition: $dataset) { reason } } } }"""

_DAEMON = '{ instance { daemonHealth { daemonStatus(daemonType: "SENSOR") { healthy } } } }'


@contextmanager
def running(home: Path, gateway: str, **environment: str) -> Generator[Dagster]:
    """Start both, wait until they serve, stop both."""
    env = {"TIDEMILL_DAGSTER_GATEWAY": gateway, "TIDEMILL_DAGSTER_INTERVAL_SECONDS": "1", **environment}
    port = free_port()
    with (
        started("webserver", home, env, "--port", str(port)) as webserver,
        started("daemon", home, env),
    ):
        dagster = Dagster(f"http://127.0.0.1:{port}", home)
        wait_until(lambda: webserver.poll() is not None or serves(dagster.url), "the webserver")
        assert webserver.poll() is None, (home.parent / "webserver.log").read_text()[-2000:]
        wait_until(dagster.daemon_is_healthy, "the sensor daemon")
        yield dagster


@contextmanager
def started(
    process: str, home: Path, environment: Mapping[str, str], *arguments: str
) -> "Generator[subprocess.Popen[bytes]]":
    """One of the two, in a process group of its own that does not outlive the test."""
    log = (home.parent / f"{process}.log").open("ab")
    command = [sys.executable, "-m", "dagster_defs", process, "--home", str(home), *arguments]
    env = {**os.environ, "TIDEMILL_HOME": str(home.parent), "TIDEMILL_DAGSTER_API_KEY": API_KEY, **environment}
    with log, subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True) as child:
        try:
            yield child
        finally:
            stop(child)


def stop(child: "subprocess.Popen[bytes]", sig: int = signal.SIGTERM) -> None:
    """End the process, then whatever it left in its group."""
    if child.poll() is None:
        child.send_signal(sig)
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def group_is_empty(child: "subprocess.Popen[bytes]") -> bool:
    """Nothing of the process's group is left."""
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return True
    return False


def serves(url: str) -> bool:
    """The webserver answers."""
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5) as response:  # noqa: S310
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
