"""The real webserver and daemon: reported exactly once, stale when it should be, gone when stopped."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_defs.lib.versions import job_id
from tests.dagster_defs.fakes import FakeFeed, FakeGateway, make_job, serving
from tests.dagster_defs.processes import Dagster, group_is_empty, running, started, stop, wait_until


@pytest.fixture(scope="module")
def live_feed() -> FakeFeed:
    return FakeFeed()


@pytest.fixture(scope="module")
def address(live_feed: FakeFeed) -> Iterator[str]:
    with serving(FakeGateway(live_feed)) as address:
        yield address


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("tidemill") / "dagster"
    with running(home, address, TIDEMILL_DAGSTER_TRACE_URL_TEMPLATE="http://traces/{trace_id}") as dagster:
        yield dagster


def _tags(materialization: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in materialization["tags"]}


def test_daemon_materialises_each_job_once(dagster: Dagster, live_feed: FakeFeed) -> None:
    jobs = [live_feed.run(make_job(f"rows {index}", dataset="once")) for index in range(3)]
    wait_until(lambda: len(dagster.materializations("once")) >= 3, "three materialisations")
    last = live_feed.run(make_job("marker", dataset="marker"))
    wait_until(lambda: len(dagster.materializations("marker")) == 1, "a job reported after them")
    found = [_tags(event)["tidemill/job_id"] for event in dagster.materializations("once")]
    assert sorted(found) == sorted(job_id(job) for job in jobs)
    [marker] = dagster.materializations("marker")
    urls = [entry["url"] for entry in marker["metadataEntries"] if entry["label"] == "trace"]
    assert urls == [f"http://traces/{last.trace_id}"]


def test_new_input_marks_the_output_stale_until_it_is_answered(dagster: Dagster, live_feed: FakeFeed) -> None:
    live_feed.run(make_job("first rows", dataset="stale"))
    wait_until(lambda: len(dagster.materializations("stale")) == 1, "the first version")
    assert dagster.stale("stale") == ("FRESH", [])
    live_feed.accept(again := make_job("first rows", dataset="stale"))
    live_feed.accept(second := make_job("second rows", dataset="stale"))
    wait_until(lambda: dagster.stale("stale")[0] == "STALE", "new input")
    assert dagster.stale("stale") == ("STALE", ["has a new data version"])
    live_feed.finish(again)
    live_feed.finish(second)
    wait_until(lambda: len(dagster.materializations("stale")) == 3, "the answers")
    assert dagster.stale("stale") == ("FRESH", [])


def test_killed_daemon_loses_and_repeats_nothing(dagster: Dagster, live_feed: FakeFeed, address: str) -> None:
    # A second daemon on a home of its own, killed while it stores events.
    home = dagster.home.parent / "killed" / "dagster"
    home.mkdir(parents=True)
    env = {"TIDEMILL_DAGSTER_GATEWAY": address, "TIDEMILL_DAGSTER_INTERVAL_SECONDS": "1"}
    jobs = [live_feed.run(make_job(f"rows {index}", dataset="killed")) for index in range(20)]
    from dagster import DagsterInstance

    from tests.dagster_defs.stored import job_ids, materializations

    with started("daemon", home, env) as child:
        wait_until((home / "dagster.yaml").exists, "the launcher")
        with DagsterInstance.from_config(str(home)) as instance:
            wait_until(lambda: len(materializations(instance)) > 3, "the first materialisations")
            stop(child, signal.SIGKILL)
            with started("daemon", home, env):
                wanted = {job_id(job) for job in jobs}
                wait_until(lambda: wanted <= set(job_ids(materializations(instance))), "all materialisations")
            assert set(job_ids(materializations(instance)).values()) == {1}


def test_sigterm_ends_the_webserver_and_its_code_server(tmp_path: Path, address: str) -> None:
    home = tmp_path / "tidemill" / "dagster"
    home.mkdir(parents=True)
    with started("daemon", home, {"TIDEMILL_DAGSTER_GATEWAY": address}) as child:
        wait_until((home / "history").exists, "the daemon's storage")
        child.terminate()
        child.wait(30)
        wait_until(lambda: group_is_empty(child), "the code server's end", 60)
