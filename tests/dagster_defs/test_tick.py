"""Any feed, any crashes: every job reported once. The pure tick against an event log in memory."""

from dataclasses import dataclass, field

import dagster as dg
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_defs.lib.cursor import FeedCursor
from dagster_defs.lib.reported import Reported
from dagster_defs.lib.tick import Event, run_tick
from dagster_defs.lib.versions import JOB_ID_TAG, OUTPUTS, PROMPTS, data_version, job_id
from tests.dagster_defs.fakes import FINISHED, FakeFeed, make_job
from tidemill.v1 import job_pb2


@dataclass
class FakeEventLog:
    """Dagster's event log: storage ids rise, events are never lost."""

    stored: list[tuple[int, Event]] = field(default_factory=list[tuple[int, Event]])

    def store(self, event: Event) -> None:
        self.stored.append((len(self.stored) + 1, event))

    def reported(self, after: int) -> Reported:
        recent = [(storage_id, event) for storage_id, event in self.stored if storage_id > after]
        return Reported(
            frozenset(_job(event) for _, event in recent if event.asset_key == PROMPTS),
            frozenset(_job(event) for _, event in recent if event.asset_key == OUTPUTS),
            max((storage_id for storage_id, _ in recent), default=after),
        )

    def find_input(self, partition: str, version: str) -> int | None:
        for storage_id, event in reversed(self.stored):
            is_input = event.asset_key == PROMPTS and event.partition == partition
            if is_input and data_version(dict(event.tags or {})) == version:
                return storage_id
        return None


def _job(event: Event) -> str:
    return (event.tags or {})[JOB_ID_TAG]


STATES = st.sampled_from([job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_CANCELLED])
JOBS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), STATES), min_size=1, max_size=8)


@st.composite
def feeds(draw: st.DrawFn) -> FakeFeed:
    """Jobs over few datasets and few inputs, each accepted before it finishes, in any interleaving."""
    jobs = [make_job(f"rows {r}", dataset=f"set-{d}", state=state) for r, d, state in draw(JOBS)]
    order = draw(st.permutations([index for index in range(len(jobs)) for _ in range(2)]))
    feed, accepted = FakeFeed(), set[int]()
    for index in order:
        (feed.finish if index in accepted else feed.accept)(jobs[index])
        accepted.add(index)
    return feed


@settings(max_examples=300, deadline=None)
@given(feed=feeds(), limit=st.integers(1, 7), crashes=st.lists(st.integers(0, 4), max_size=12))
def test_any_crashes_leave_each_job_reported_once(feed: FakeFeed, limit: int, crashes: list[int]) -> None:
    log, cursor, partitions = FakeEventLog(), FeedCursor(), set[str]()
    end = feed.entries[-1].sequence
    while cursor.sequence < end:
        tick, after = run_tick(
            cursor, feed.after(cursor.sequence, limit), log.reported(cursor.storage_id), log.find_input
        )
        survives = crashes.pop() if crashes else len(tick.events)
        for event in tick.events[:survives]:
            log.store(event)
        if survives >= len(tick.events):
            partitions |= set(tick.partitions)
            cursor = FeedCursor.from_json(after.to_json())
    _check(feed, log, partitions)


def _check(feed: FakeFeed, log: FakeEventLog, partitions: set[str]) -> None:
    events = [event for _, event in log.stored]
    jobs = {job_id(entry.job): entry.job for entry in feed.entries}
    assert sorted(_job(event) for event in events if event.asset_key == OUTPUTS) == sorted(jobs)
    assert sorted(_job(event) for event in events if event.asset_key == PROMPTS) == sorted(jobs)
    assert partitions == {job.dataset for job in jobs.values()}
    for event in events:
        if isinstance(event, dg.AssetMaterialization):
            _check_pointer(event, log, jobs[_job(event)])
    assert _newest(feed) == {
        event.partition: _job(event) for event in events if isinstance(event, dg.AssetMaterialization)
    }


def _check_pointer(event: dg.AssetMaterialization, log: FakeEventLog, job: job_pb2.Job) -> None:
    pointer = int((event.tags or {})["dagster/input_event_pointer/prompts"])
    _, observed = log.stored[pointer - 1]
    assert (observed.asset_key, observed.partition) == (PROMPTS, event.partition)
    assert data_version(dict(observed.tags or {})) == job.input_data_version


def _newest(feed: FakeFeed) -> dict[str, str]:
    """The last job of each dataset that succeeded, in feed order."""
    return {
        entry.dataset: job_id(entry.job)
        for entry in feed.entries
        if entry.kind == FINISHED and entry.job.state == job_pb2.JOB_STATE_SUCCEEDED
    }


def test_replays_are_no_versions_and_hold_nothing_up() -> None:
    feed, log = FakeFeed(), FakeEventLog()
    replay = make_job("rows 0", dataset="set-0--replay", replay_of="tenants/acme/jobs/x")
    feed.accept(replay)
    feed.finish(replay)
    tick, after = run_tick(FeedCursor(), feed.after(0, 10), log.reported(0), log.find_input)
    assert (tick.events, tick.partitions, after.sequence) == ([], {}, feed.entries[-1].sequence)
