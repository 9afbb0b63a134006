"""The real webserver and daemon: reported exactly once, stale when it should be, gone when stopped."""

import signal
from pathlib import Path

import dagster as dg

from dagster_defs.lib.versions import job_id
from tests.dagster_defs.fakes import FakeFeed, FakeGateway, make_job, serving
from tests.dagster_defs.processes import Dagster, group_is_empty, started, stop, wait_until
from tests.dagster_defs.stored import job_ids, materializations


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


def test_killed_daemon_loses_and_repeats_nothing(tmp_path: Path) -> None:
    feed, home = FakeFeed(), tmp_path / "tidemill" / "dagster"
    wanted = {job_id(feed.run(make_job(f"rows {index}", dataset="killed"))): 1 for index in range(12)}
    home.mkdir(parents=True)
    with serving(FakeGateway(feed)) as gateway:
        env = {"TIDEMILL_DAGSTER_GATEWAY": gateway, "TIDEMILL_DAGSTER_INTERVAL_SECONDS": "1"}
        with started("daemon", home, env) as child:
            wait_until((home / ".storage-created").exists, "the launcher")
            with dg.DagsterInstance.from_config(str(home)) as instance:
                wait_until(lambda: len(materializations(instance)) > 2, "the first materialisations")
                stop(child, signal.SIGKILL)
                with started("daemon", home, env):
                    wait_until(lambda: set(wanted) <= set(job_ids(materializations(instance))), "the others")
                    feed.run(make_job("marker", dataset="marker"))
                    wait_until(lambda: len(materializations(instance)) > len(wanted), "a job reported after them")
                reported = job_ids(materializations(instance))
    assert {job: reported[job] for job in wanted} == wanted


def test_sigterm_ends_the_webserver_and_its_code_server(tmp_path: Path, live_address: str) -> None:
    home = tmp_path / "tidemill" / "dagster"
    home.mkdir(parents=True)
    with started("daemon", home, {"TIDEMILL_DAGSTER_GATEWAY": live_address}) as child:
        wait_until((home / "history").exists, "the daemon's storage")
        child.terminate()
        child.wait(120)
        wait_until(lambda: group_is_empty(child), "the code server's end", 60)
