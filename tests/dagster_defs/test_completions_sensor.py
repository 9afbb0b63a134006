"""The completions sensor on a real instance and a gateway's real port."""

import json

import dagster as dg
import pytest

from dagster_defs.defs.partitions import DATASETS
from dagster_defs.lib.cursor import CursorError
from dagster_defs.lib.gateway import TidemillGateway
from dagster_defs.lib.versions import OUTPUTS, job_id
from tests.dagster_defs.daemon import CrashError, Daemon
from tests.dagster_defs.fakes import API_KEY, FakeFeed, FakeGateway, digest, make_job, serving
from tests.dagster_defs.stored import job_ids, materializations, observations
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import job_pb2


def test_finished_job_is_one_version_of_its_dataset(daemon: Daemon, feed: FakeFeed) -> None:
    job = feed.run(make_job())
    daemon.settle()
    [event] = materializations(daemon.instance)
    [observed] = daemon.instance.fetch_observations(dg.AssetKey("prompts"), 10).records
    assert event.partition == "reviews"
    assert event.tags == {
        "tidemill/job_id": job_id(job),
        "tidemill/state": "SUCCEEDED",
        "dagster/data_version": digest("answers to rows"),
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": f"tiny@{digest('weights')}+vllm 0.32.0 (cpu)",
        "dagster/input_data_version/prompts": digest("rows"),
        "dagster/input_event_pointer/prompts": str(observed.storage_id),
    }
    assert daemon.instance.get_dynamic_partitions(DATASETS) == ["reviews"]


def test_accepted_job_is_an_observation_of_its_input(daemon: Daemon, feed: FakeFeed) -> None:
    job = feed.accept(make_job())
    daemon.settle()
    [event] = observations(daemon.instance)
    assert event.partition == "reviews"
    assert (event.tags or {})["dagster/data_version"] == digest("rows")
    assert (event.tags or {})["tidemill/job_id"] == job_id(job)
    assert not materializations(daemon.instance)
    assert daemon.instance.get_dynamic_partitions(DATASETS) == ["reviews"]


def test_output_waits_a_tick_for_the_storage_id_of_its_input(daemon: Daemon, feed: FakeFeed) -> None:
    feed.run(make_job())
    daemon.tick()
    assert not materializations(daemon.instance)
    daemon.tick()
    assert len(materializations(daemon.instance)) == 1


def test_waiting_outputs_hold_up_no_other_dataset(daemon: Daemon, feed: FakeFeed) -> None:
    feed.accept(first := make_job(dataset="first"))
    daemon.tick()
    feed.run(make_job(dataset="second"))
    feed.finish(first)
    daemon.tick()
    assert [event.partition for event in materializations(daemon.instance)] == ["first"]
    daemon.settle()
    assert [event.partition for event in materializations(daemon.instance)] == ["first", "second"]


def test_newest_version_of_a_dataset_is_stored_last(daemon: Daemon, feed: FakeFeed) -> None:
    old, new = make_job("old rows"), make_job("new rows")
    feed.accept(new)
    daemon.tick()
    feed.run(old)
    feed.finish(new)
    daemon.settle()
    assert list(job_ids(materializations(daemon.instance))) == [job_id(old), job_id(new)]


def test_output_without_any_observation_of_its_input_gets_one(daemon: Daemon, feed: FakeFeed) -> None:
    feed.finish(make_job())
    daemon.settle()
    assert len(observations(daemon.instance)) == 1
    assert len(materializations(daemon.instance)) == 1


def test_pointer_is_of_the_jobs_own_input_version(daemon: Daemon, feed: FakeFeed) -> None:
    feed.accept(old := make_job("old rows"))
    feed.accept(make_job("new rows"))
    daemon.tick()
    feed.finish(old)
    daemon.settle()
    [event] = materializations(daemon.instance)
    pointer = int((event.tags or {})["dagster/input_event_pointer/prompts"])
    records = daemon.instance.fetch_observations(dg.AssetKey("prompts"), 10, ascending=True).records
    assert pointer == records[0].storage_id


@pytest.mark.parametrize("state", [job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_EXPIRED])
def test_unfinished_job_is_an_observation_and_no_version(
    daemon: Daemon, feed: FakeFeed, state: job_pb2.JobState.ValueType
) -> None:
    job = feed.run(make_job(state=state))
    daemon.settle()
    [event] = observations(daemon.instance, OUTPUTS)
    assert not materializations(daemon.instance)
    assert (event.tags or {})["tidemill/job_id"] == job_id(job)
    assert "dagster/data_version" not in (event.tags or {})
    assert event.metadata["state"].value == job_pb2.JobState.Name(state).removeprefix("JOB_STATE_")
    assert event.metadata["rows_succeeded"].value == 1


def test_job_that_was_never_sealed_is_passed_over(daemon: Daemon, feed: FakeFeed) -> None:
    unsealed = make_job(state=job_pb2.JOB_STATE_EXPIRED)
    unsealed.ClearField("dataset")
    unsealed.ClearField("input_data_version")
    feed.finish(unsealed)
    feed.run(make_job())
    daemon.settle()
    assert len(materializations(daemon.instance)) == 1
    assert not observations(daemon.instance, OUTPUTS)


def test_success_without_a_dataset_is_an_error(daemon: Daemon, feed: FakeFeed) -> None:
    job = make_job()
    job.ClearField("dataset")
    feed.finish(job)
    with pytest.raises(TidemillError, match="without naming its dataset"):
        daemon.tick()


def _busy_feed(feed: FakeFeed) -> dict[str, int]:
    """Accepted and finished jobs in an awkward order; returns how often each job must be materialised."""
    jobs = [make_job(f"rows {index % 3}", dataset=f"set-{index % 2}") for index in range(5)]
    cancelled = make_job("rows 9", state=job_pb2.JOB_STATE_CANCELLED)
    for job in jobs[:3]:
        feed.accept(job)
    feed.finish(jobs[1])
    feed.run(cancelled)
    feed.run(jobs[3])
    feed.finish(jobs[0])
    feed.run(jobs[4])
    feed.finish(jobs[2])
    return {job_id(job): 1 for job in jobs}


def _crash_points() -> list[tuple[int, int]]:
    """Every (tick, stored steps) at which the busy feed's ticks can die."""
    feed = FakeFeed()
    _busy_feed(feed)
    with dg.DagsterInstance.ephemeral() as instance, serving(FakeGateway(feed)) as address:
        daemon = Daemon(instance, TidemillGateway(address=address, api_key=API_KEY))
        sizes: list[int] = []
        while size := daemon.tick():
            sizes.append(size)
    return [(tick, stored) for tick, size in enumerate(sizes) for stored in range(size + 1)]


def test_every_crash_point_leaves_each_job_reported_once(daemon: Daemon, feed: FakeFeed) -> None:
    expected = _busy_feed(feed)
    points = _crash_points()
    assert len(points) > 15
    for tick, stored in points:
        with dg.instance_for_test() as instance:
            crashing = Daemon(instance, daemon.gateway)
            for _ in range(tick):
                crashing.tick()
            with pytest.raises(CrashError):
                crashing.tick(crash_after=stored)
            crashing.settle()
            assert job_ids(materializations(instance)) == expected, (tick, stored)
            assert set(job_ids(observations(instance)).values()) == {1}, (tick, stored)
            assert set(job_ids(observations(instance, OUTPUTS)).values()) == {1}, (tick, stored)
            assert set(instance.get_dynamic_partitions(DATASETS)) == {"set-0", "set-1", "reviews"}


def test_crashing_at_every_step_of_every_tick_still_ends(daemon: Daemon, feed: FakeFeed) -> None:
    expected = _busy_feed(feed)
    for _ in range(100):
        try:
            if daemon.tick(crash_after=1) == 0:
                break
        except CrashError:
            # The next tick must get further than this one: one event is stored.
            continue
    daemon.settle()
    assert job_ids(materializations(daemon.instance)) == expected


def test_emptied_cursor_reports_nothing_twice(daemon: Daemon, feed: FakeFeed) -> None:
    expected = _busy_feed(feed)
    daemon.settle()
    before = observations(daemon.instance)
    daemon.cursor = None
    daemon.settle()
    assert job_ids(materializations(daemon.instance)) == expected
    assert len(observations(daemon.instance)) == len(before)


def test_cursor_of_another_ledger_is_refused(daemon: Daemon, feed: FakeFeed) -> None:
    feed.run(make_job())
    daemon.settle()
    before = daemon.cursor
    feed.ledger_uid = "ledger-two"
    feed.run(make_job())
    with pytest.raises(CursorError, match="belongs to ledger ledger-one, but the gateway serves ledger ledger-two"):
        daemon.tick()
    assert daemon.cursor == before
    assert len(materializations(daemon.instance)) == 1


def test_gateway_away_skips_the_tick_and_keeps_the_cursor(instance: dg.DagsterInstance, feed: FakeFeed) -> None:
    gateway = FakeGateway(feed)
    feed.run(make_job())
    with serving(gateway) as address:
        daemon = Daemon(instance, TidemillGateway(address=address, api_key=API_KEY))
        daemon.settle()
    before = daemon.cursor
    feed.run(make_job("more rows"))
    skipped = daemon.evaluate()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message is not None
    assert f"gateway {address}" in skipped.skip_message
    assert "UNAVAILABLE" in skipped.skip_message
    assert daemon.cursor == before
    with serving(gateway, port=int(address.rsplit(":", 1)[1])):
        daemon.settle()
    assert len(materializations(instance)) == 2


def test_wrong_key_fails_the_tick(instance: dg.DagsterInstance, fake_gateway: FakeGateway) -> None:
    with serving(fake_gateway) as address:
        daemon = Daemon(instance, TidemillGateway(address=address, api_key="tm_wrong"))
        with pytest.raises(TidemillError) as caught:
            daemon.tick()
    assert caught.value.reason is Reason.API_KEY_INVALID


def test_long_feed_is_read_in_slices(daemon: Daemon, feed: FakeFeed) -> None:
    jobs = [feed.run(make_job(f"rows {index}", dataset=f"set-{index}")) for index in range(150)]
    ticks = 0
    while daemon.tick():
        ticks += 1
    assert ticks >= 3
    assert job_ids(materializations(daemon.instance)) == {job_id(job): 1 for job in jobs}
    assert json.loads(daemon.cursor or "")["sequence"] == feed.entries[-1].sequence


@pytest.mark.parametrize("largest", [20, 1])
def test_slice_too_large_for_the_gateway_is_cut(
    daemon: Daemon, feed: FakeFeed, fake_gateway: FakeGateway, largest: int
) -> None:
    jobs = [feed.run(make_job(f"rows {index}", dataset=f"set-{index}")) for index in range(15)]
    fake_gateway.largest_slice = largest
    daemon.settle()
    assert job_ids(materializations(daemon.instance)) == {job_id(job): 1 for job in jobs}


def test_overloaded_gateway_skips_the_tick(daemon: Daemon, feed: FakeFeed, fake_gateway: FakeGateway) -> None:
    feed.run(make_job())
    fake_gateway.largest_slice = 0
    skipped = daemon.evaluate()
    assert isinstance(skipped, dg.SkipReason)
    assert "OVERLOADED" in (skipped.skip_message or "")


def test_cursor_follows_the_feeds_end_without_news(daemon: Daemon, feed: FakeFeed) -> None:
    feed.end = 40
    daemon.tick()
    assert json.loads(daemon.cursor or "") == {"sequence": 40, "storage_id": 0, "ledger_uid": "ledger-one"}
    feed.run(make_job())
    daemon.settle()
    assert len(materializations(daemon.instance)) == 1
