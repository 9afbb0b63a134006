"""The local Ray cluster lets nobody else in: on loopback only, and only with the token of this process."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from services.inference.environment import prepare_environment
from services.inference.rayenv import start_ray, stop_ray
from services.inference.settings import InferenceSettings
from tests.system.processes import is_loopback

# Ray leaves files and sockets to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.engine]

JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); print('joined', len(ray.nodes()))"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of this process, with tokens of other clusters in the environment."""
    before = dict(os.environ)
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ADDRESS": "127.0.0.1:1"})
    prepare_environment("cpu")
    options = InferenceSettings(ray_cpus=2).ray_options()
    start_ray(options)
    import ray

    yield ray.get_runtime_context().gcs_address
    stop_ray(options)
    os.environ.clear()
    os.environ.update(before)


def join(address: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What another process sees that connects to the cluster with these variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", JOIN, address]
    return subprocess.run(
        command, env={**others, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_its_ports_are_on_loopback(address: str) -> None:
    assert address.startswith("127.0.0.1:")
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [
        (process.name(), connection.laddr)
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(found) >= 5
    assert [entry for entry in found if not is_loopback(entry[1].ip)] == []


@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}], ids=["none", "wrong"])
def test_without_its_token_nobody_joins(address: str, token: dict[str, str]) -> None:
    refused = join(address, **token)
    assert refused.returncode != 0
    assert "AuthenticationError" in refused.stderr
    assert "joined" not in refused.stdout


def test_its_own_processes_join(address: str) -> None:
    joined = join(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.environ["RAY_AUTH_TOKEN"])
    assert joined.stdout.strip().endswith("joined 1"), joined.stderr[-2000:]
