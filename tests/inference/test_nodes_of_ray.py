"""The real thing on a Ray cluster of two nodes: a replica on each, a node that dies, a head that restarts."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from services.inference.raywatch import EXIT_STATUS
from tests.inference.processes import Service, World, wait_until, world
from tests.inference.ray_nodes import RayCluster
from tests.inference.rows import prompt
from tidemill.tiny_model import make_tiny
from tidemill.v1 import job_pb2, row_pb2

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LOAD_SECONDS = 400.0
ROWS = 600


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    found = RayCluster(tmp_path_factory.mktemp("ray"))
    before = dict(os.environ)
    # What keeps a local cluster to itself is not for this one.
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "VLLM_HOST_IP", "MASTER_ADDR", "GLOO_SOCKET_IFNAME"):
        os.environ.pop(name, None)
    os.environ.update(found.environment)
    try:
        found.start(0)
        found.start(1)
        yield found
    finally:
        found.close()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def stack(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    make_tiny(home / "tiny")
    with world(home, lease_seconds="10", chunk_rows="64") as found:
        serve(found, cluster)
        yield found


def serve(stack: World, cluster: RayCluster) -> Service:
    """An inference process with a replica on each node."""
    service = stack.inference(
        f"tiny={stack.home}/tiny",
        preload="tiny",
        part_seconds="0.3",
        ray_address=cluster.address,
        replicas="tiny=2",
        max_engines="1",
        retry_load_seconds="1",
        probe_seconds="1",
        ray_lost_seconds="10",
        drain_seconds="2",
    )
    wait_until(lambda: health(service)["replicas"] == 2, LOAD_SECONDS)
    return service


def health(service: Service) -> dict[str, Any]:
    """What /readyz says of the model."""
    url = f"http://{service.http_address}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["models"]["tiny"]
    except urllib.error.HTTPError as exc:
        with exc:
            return json.load(exc).get("models", {}).get("tiny", {"replicas": 0})
    except OSError:
        return {"replicas": 0}


def prompts() -> list[row_pb2.Row]:
    return [
        prompt(f"p{index}", f"Tell me of the {index}th day at sea", temperature=0, max_tokens=120)
        for index in range(ROWS)
    ]


def whole(stack: World, name: str) -> None:
    """The job ends with each row answered, once."""
    job = stack.ended(name, LOAD_SECONDS)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    results = stack.results(name)
    assert [row.row_index for row in results] == list(range(ROWS))
    assert {row.error_code for row in results} == {""}


def test_two_replicas_are_on_two_nodes_and_one_dies_with_its_own(stack: World, cluster: RayCluster) -> None:
    service = stack.services[-1]
    assert len(health(service)["nodes"]) == 2
    name = stack.submit(prompts())
    wait_until(lambda: stack.job(name).row_counts.succeeded > 0)
    cluster.kill(1)
    whole(stack, name)
    found = health(service)
    assert (found["state"], found["replicas"]) == ("LOADED", 1)
    assert stack.job(name).row_counts.failed == 0


def test_a_replica_comes_back_with_a_node(stack: World, cluster: RayCluster) -> None:
    cluster.start(1)
    wait_until(lambda: health(stack.services[-1])["replicas"] == 2, LOAD_SECONDS)


def test_a_head_that_restarts_ends_the_service_and_loses_nothing(stack: World, cluster: RayCluster) -> None:
    name = stack.submit(prompts())
    wait_until(lambda: stack.job(name).row_counts.succeeded > 0)
    service = stack.services[-1]
    cluster.kill(0)
    assert service.process.wait(90) == EXIT_STATUS
    assert "the Ray cluster is gone" in (stack.home / "services.inference.out").read_text()
    cluster.kill(1)
    cluster.start(0)
    cluster.start(1)
    serve(stack, cluster)
    whole(stack, name)
