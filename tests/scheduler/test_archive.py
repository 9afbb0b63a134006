"""Jobs that have left memory: whoever asks about one is answered as before."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import archived as archived_format
from services.scheduler import archivist, opened_jobs
from services.scheduler.core.records import Part
from services.scheduler.ledger import MemoryLedger
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.opened_jobs import OpenedJobs
from services.scheduler.upkeep import Upkeep
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.fake_clock import FakeClock
from tests.scheduler.fake_ledger import FakeLedger, write_failed
from tests.scheduler.service_desk import CONTEXT, ServiceDesk, running, until
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2, job_service_pb2

AT_ONCE = Upkeep(archive_jobs=0)
ACCEPTED = job_service_pb2.COMPLETION_KIND_ACCEPTED
FINISHED = job_service_pb2.COMPLETION_KIND_FINISHED


async def archived(desk: ServiceDesk, name: str) -> None:
    """Wait until the job has left memory."""

    async def gone() -> bool:
        return name not in desk.scheduler.engine.state.jobs

    await until(gone)


async def refused(call: object) -> TidemillError:
    """What the awaited call raises."""
    with pytest.raises(TidemillError) as caught:
        await call  # type: ignore[misc]
    return caught.value


@pytest.fixture
async def desk() -> AsyncIterator[ServiceDesk]:
    async with running(upkeep=AT_ONCE) as found:
        yield found


async def finish(
    desk: ServiceDesk, spec: records_pb2.JobSpec | None = None
) -> tuple[records_pb2.JobRecord, list[pb.CommitPartRequest], pb.FinishJobRequest]:
    """A job that ran; its last record, its commits and its end, to be said again."""
    name = await desk.queue(spec, 25)
    commits: list[pb.CommitPartRequest] = []
    while True:
        (lease,) = await desk.lease(wait=5)
        if lease.kind == pb.LEASE_KIND_FINALISE:
            break
        commits.append(builders.part(lease, set(range(lease.chunk_rows))))
        await desk.commit(commits[-1])
    end = builders.finish(lease, tally_of(await desk.job(name)))
    return await desk.rpc.FinishJob(end, CONTEXT), commits, end


def tally_of(record: records_pb2.JobRecord) -> records_pb2.RowTally:
    counts, usage = record.row_counts, record.usage
    return records_pb2.RowTally(
        succeeded=counts.succeeded, prompt_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens
    )


async def test_an_archived_job_reads_as_before(desk: ServiceDesk):
    before, _, _ = await finish(desk)
    name = before.spec.name
    await archived(desk, name)
    assert await desk.job(name) == before
    segments = await desk.rpc.ListSegments(pb.ListSegmentsRequest(job=name, limit=10), CONTEXT)
    assert [(segment.start, segment.count) for segment in segments.segments] == [(0, 25)]
    parts = await desk.rpc.ListParts(pb.ListPartsRequest(job=name, limit=2), CONTEXT)
    assert (len(parts.parts), parts.more, parts.state) == (2, True, before.state)
    rest = await desk.rpc.ListParts(pb.ListPartsRequest(job=name, after_part=2, limit=2), CONTEXT)
    assert (len(rest.parts), rest.more) == (1, False)
    seen = [response.job async for response in desk.watch(name)]
    assert seen == [before]
    assert not desk.scheduler.engine.state.part_of
    recount.check(desk.scheduler.engine.state)


async def test_calls_that_are_repeated_are_answered_as_duplicates(desk: ServiceDesk):
    before, commits, end = await finish(desk)
    name = before.spec.name
    await archived(desk, name)
    for commit in commits:
        again = await desk.commit(commit)
        assert again.duplicate
        assert again.chunk_done
    assert await desk.rpc.FinishJob(end, CONTEXT) == before
    assert await desk.rpc.SealJob(builders.seal(name, 25), CONTEXT) == before
    segment = await desk.rpc.CommitSegment(builders.segment(name, 0, 25), CONTEXT)
    assert segment.next_offset == 25


async def test_what_an_ended_job_refuses_an_archived_one_refuses(desk: ServiceDesk):
    before, commits, end = await finish(desk)
    name = before.spec.name
    await archived(desk, name)
    other = commits[0]
    other.part.part_number += 1
    assert (await refused(desk.commit(other))).reason is Reason.STALE_FENCE
    other.part.part_number -= 1
    other.part.sha256 = builders.SHA
    assert (await refused(desk.commit(other))).reason is Reason.PART_CONFLICT
    end.output_manifest_key += "x"
    assert (await refused(desk.rpc.FinishJob(end, CONTEXT))).reason is Reason.STALE_FENCE
    assert (await refused(desk.rpc.CancelJob(pb.CancelJobRequest(job=name), CONTEXT))).reason is Reason.JOB_TERMINAL
    assert (await refused(desk.rpc.OpenWriter(pb.OpenWriterRequest(job=name), CONTEXT))).reason is (
        Reason.JOB_NOT_RECEIVING
    )
    release = pb.ReleaseLeaseRequest(lease=end.lease)
    assert (await refused(desk.rpc.ReleaseLease(release, CONTEXT))).reason is Reason.STALE_FENCE


async def test_an_unknown_job_stays_unknown(desk: ServiceDesk):
    before, _, _ = await finish(desk)
    await archived(desk, before.spec.name)
    assert (await refused(desk.job(builders.job_name(77)))).reason is Reason.JOB_NOT_FOUND


async def test_a_request_is_found_again(desk: ServiceDesk):
    spec = builders.spec(request_id="once")
    before, _, _ = await finish(desk, spec)
    await archived(desk, before.spec.name)
    again = builders.spec(2, request_id="once")
    assert await desk.rpc.CreateJob(pb.CreateJobRequest(spec=again), CONTEXT) == before
    assert await desk.rpc.CreateJob(pb.CreateJobRequest(spec=spec), CONTEXT) == before
    other = builders.spec(3, request_id="once", model="other")
    error = await refused(desk.rpc.CreateJob(pb.CreateJobRequest(spec=other), CONTEXT))
    assert error.reason is Reason.REQUEST_ID_REUSED
    assert error.metadata["job"] == before.spec.name
    fresh = await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(4, request_id="twice")), CONTEXT)
    assert fresh.state == job_pb2.JOB_STATE_RECEIVING


async def test_lists_join_memory_and_archive(desk: ServiceDesk):
    for number in (1, 3, 5):
        before, _, _ = await finish(desk, builders.spec(number))
        await archived(desk, before.spec.name)
    for number in (2, 4):
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(number)), CONTEXT)

    async def page(size: int, before: int = 0, *states: job_pb2.JobState.ValueType) -> tuple[list[int], bool]:
        name = builders.job_name(before) if before else ""
        request = pb.ListJobsRequest(tenant="acme", page_size=size, before_name=name, states=states)
        response = await desk.rpc.ListJobs(request, CONTEXT)
        numbers = {builders.job_name(number): number for number in range(1, 6)}
        return [numbers[job.spec.name] for job in response.jobs], response.more

    assert await page(10) == ([5, 4, 3, 2, 1], False)
    assert await page(2) == ([5, 4], True)
    assert await page(2, 4) == ([3, 2], True)
    assert await page(2, 2) == ([1], False)
    assert await page(2, 0, job_pb2.JOB_STATE_SUCCEEDED) == ([5, 3], True)
    assert await page(9, 0, job_pb2.JOB_STATE_RECEIVING) == ([4, 2], False)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts that were built from here on."""
    parts: list[Part] = []
    whole = Part.__init__

    def build(part: Part, *values: Any, **named: Any) -> None:
        whole(part, *values, **named)
        parts.append(part)

    monkeypatch.setattr(Part, "__init__", build)
    return parts


async def test_what_needs_the_record_alone_builds_no_parts(desk: ServiceDesk, built: list[Part]):
    spec = builders.spec(request_id="once")
    before, commits, _ = await finish(desk, spec)
    await archived(desk, before.spec.name)
    assert len(commits) == 3
    built.clear()
    listed = await desk.rpc.ListJobs(pb.ListJobsRequest(tenant="acme", page_size=9), CONTEXT)
    assert list(listed.jobs) == [before]
    feed = await desk.rpc.ListCompletions(pb.ListCompletionsRequest(tenant="acme", limit=9), CONTEXT)
    assert [entry.job for entry in feed.completions] == [before, before]
    assert await desk.rpc.CreateJob(pb.CreateJobRequest(spec=spec), CONTEXT) == before
    assert built == []


async def test_pages_of_one_archived_job_take_it_apart_once(desk: ServiceDesk, built: list[Part]):
    before, _, _ = await finish(desk)
    name = before.spec.name
    await archived(desk, name)
    built.clear()
    for after in range(3):
        page = await desk.rpc.ListParts(pb.ListPartsRequest(job=name, after_part=after, limit=1), CONTEXT)
        assert len(page.parts) == 1
    assert len(built) == 3


def whole_job(number: int, key: str = "") -> archived_format.ArchivedJob:
    """A job as the archive has it, with an output key."""
    desk = Desk()
    name = desk.queue(builders.spec(number), [5])
    found = archived_format.take(desk.state, name)
    return replace(found, job=replace(found.job, output_manifest_key=key))


async def test_the_opened_jobs_are_bounded(monkeypatch: pytest.MonkeyPatch):
    one, two = whole_job(1), whole_job(2)
    name, first, second = one.job.name, archived_format.pack(one), archived_format.pack(two)
    opened = OpenedJobs()
    job = await opened.unpack(first, name)
    assert await opened.unpack(first, name) is job
    changed = archived_format.pack(whole_job(1, "later"))
    assert (await opened.unpack(changed, name)).job.output_manifest_key == "later"
    job = await opened.unpack(first, name)
    monkeypatch.setattr(opened_jobs, "MAX_BYTES", len(first))
    newest = await opened.unpack(second, two.job.name)
    assert await opened.unpack(second, two.job.name) is newest
    assert await opened.unpack(first, name) is not job


@given(word=st.text(min_size=1, max_size=9), repeats=st.integers(0, 3000))
def test_a_record_of_any_length_is_read_alone(word: str, repeats: int):
    whole = whole_job(1, word * repeats)
    assert archived_format.unpack_record(archived_format.pack(whole), whole.job.name) == whole.job


async def test_the_feed_outlives_memory(desk: ServiceDesk):
    before, _, _ = await finish(desk)
    await archived(desk, before.spec.name)
    await desk.queue(builders.spec(2), 5)
    await desk.queue(builders.spec(3, tenant="beta"), 5)

    async def feed(after: int, limit: int) -> pb.ListCompletionsResponse:
        request = pb.ListCompletionsRequest(tenant="acme", after_sequence=after, limit=limit)
        return await desk.rpc.ListCompletions(request, CONTEXT)

    everything = await feed(0, 10)
    assert [(entry.kind, entry.job.spec.name) for entry in everything.completions] == [
        (ACCEPTED, builders.job_name(1)),
        (FINISHED, builders.job_name(1)),
        (ACCEPTED, builders.job_name(2)),
    ]
    assert everything.completions[0].job == before
    assert everything.next_sequence == everything.completions[-1].sequence
    assert list((await feed(0, 1)).completions) == list(everything.completions[:1])
    assert list((await feed(everything.completions[0].sequence, 1)).completions) == list(everything.completions[1:2])
    end = await feed(everything.next_sequence, 10)
    assert (list(end.completions), end.next_sequence) == ([], everything.next_sequence)


async def test_a_job_leaves_after_its_time():
    time = FakeClock()
    async with running(time=time, upkeep=Upkeep(archive_seconds=600)) as desk:
        before, _, _ = await finish(desk)
        name = before.spec.name
        time.advance(599)
        await desk.queue(builders.spec(2), 5)
        assert name in desk.scheduler.engine.state.jobs
        time.advance(2)
        await desk.queue(builders.spec(3), 5)
        await archived(desk, name)
        assert await desk.job(name) == before


async def test_the_oldest_leave_when_there_are_many():
    async with running(upkeep=Upkeep(archive_jobs=2)) as desk:
        for number in range(1, 5):
            await finish(desk, builders.spec(number))
        for number in (1, 2):
            await archived(desk, builders.job_name(number))
        assert set(desk.scheduler.engine.state.jobs) == {builders.job_name(3), builders.job_name(4)}


async def test_a_new_leader_finds_them():
    ledger = MemoryLedger()
    async with running(ledger, upkeep=AT_ONCE) as desk:
        before, commits, _ = await finish(desk, builders.spec(request_id="once"))
        await archived(desk, before.spec.name)
    async with running(ledger, upkeep=AT_ONCE) as desk:
        assert before.spec.name not in desk.scheduler.engine.state.jobs
        assert await desk.job(before.spec.name) == before
        assert (await desk.commit(commits[0])).duplicate
        again = pb.CreateJobRequest(spec=builders.spec(2, request_id="once"))
        assert await desk.rpc.CreateJob(again, CONTEXT) == before


async def test_a_job_that_cannot_be_archived_stays():
    ledger = FakeLedger()
    ledger.fail_saves = write_failed()
    async with running(ledger, upkeep=AT_ONCE) as desk:
        before, _, _ = await finish(desk)
        await desk.queue(builders.spec(2), 5)
        assert before.spec.name in desk.scheduler.engine.state.jobs
        assert await desk.job(before.spec.name) == before


async def test_a_bug_does_not_end_the_moving(monkeypatch: pytest.MonkeyPatch):
    sound, calls = archived_format.row, 0

    def broken_once(job: archived_format.ArchivedJob) -> ArchiveRow:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a bug")
        return sound(job)

    monkeypatch.setattr(archived_format, "row", broken_once)
    monkeypatch.setattr(archivist, "RETRY_SECONDS", 0.01)
    async with running(upkeep=AT_ONCE) as desk:
        before, _, _ = await finish(desk)
        await archived(desk, before.spec.name)
        assert await desk.job(before.spec.name) == before
    assert calls == 2


async def test_a_damaged_job_is_named():
    ledger = MemoryLedger()
    async with running(ledger, upkeep=AT_ONCE) as desk:
        before, _, _ = await finish(desk)
        name = before.spec.name
        await archived(desk, name)
        (row,) = ledger.list_archived("acme", [], "", 1)
        damaged = type(row)(row.name, row.tenant, row.state, row.request_id, row.blob[:-3] + b"xyz")
        ledger.archive_jobs(desk.scheduler.engine.opened.epoch, [damaged])
        error = await refused(desk.job(name))
        assert error.reason is Reason.DATA_CORRUPT
        assert name in error.message


async def test_an_archived_job_can_be_deleted():
    time, ledger = FakeClock(), MemoryLedger()
    async with running(ledger, time=time, upkeep=AT_ONCE) as desk:
        before, _, _ = await finish(desk, builders.spec(request_id="once"))
        name = before.spec.name
        await archived(desk, name)
        await desk.rpc.DeleteJob(pb.DeleteJobRequest(job=name), CONTEXT)
        assert (await refused(desk.job(name))).reason is Reason.JOB_NOT_FOUND
        listed = await desk.rpc.ListJobs(pb.ListJobsRequest(tenant="acme", page_size=9), CONTEXT)
        assert not listed.jobs
        feed = await desk.rpc.ListCompletions(pb.ListCompletionsRequest(tenant="acme", limit=9), CONTEXT)
        assert not feed.completions
        assert feed.next_sequence > 0
        again = builders.spec(2, request_id="once", deadline=builders.DEADLINE)
        assert (await desk.rpc.CreateJob(pb.CreateJobRequest(spec=again), CONTEXT)).spec.name == again.name
        assert ledger.archived(name) is not None
        time.advance(2 * 86_400)
        desk.wake_timer()
        (lease,) = await desk.lease(wait=5)
        assert (lease.kind, lease.cleanup) == (pb.LEASE_KIND_CLEANUP, ledger_pb2.CLEANUP_KIND_PURGE)
        key = pb.LeaseKey(job=name, fence=lease.fence)
        await desk.rpc.FinishCleanup(pb.FinishCleanupRequest(lease=key, files=3), CONTEXT)
        assert ledger.archived(name) is None
        assert (await refused(desk.job(name))).reason is Reason.JOB_NOT_FOUND
        recount.check(desk.scheduler.engine.state)


async def test_a_job_deleted_before_its_time_leaves_memory_as_well():
    time, ledger = FakeClock(), MemoryLedger()
    async with running(ledger, time=time, upkeep=Upkeep(archive_seconds=600)) as desk:
        before, _, _ = await finish(desk, builders.spec(request_id="once"))
        name = before.spec.name
        await desk.rpc.DeleteJob(pb.DeleteJobRequest(job=name), CONTEXT)
        assert name in desk.scheduler.engine.state.jobs
        time.advance(601)
        await desk.queue(builders.spec(2, request_id="once"), 5)
        await archived(desk, name)
        assert ledger.archived(name) is None
        assert (await refused(desk.job(name))).reason is Reason.JOB_NOT_FOUND
        listed = await desk.rpc.ListJobs(pb.ListJobsRequest(tenant="acme", page_size=9), CONTEXT)
        assert [job.spec.name for job in listed.jobs] == [builders.job_name(2)]
        recount.check(desk.scheduler.engine.state)


async def test_the_feed_leaves_a_deleted_job_out():
    async with running() as desk:
        before, _, _ = await finish(desk)
        await finish(desk, builders.spec(2))
        await desk.rpc.DeleteJob(pb.DeleteJobRequest(job=before.spec.name), CONTEXT)
        feed = await desk.rpc.ListCompletions(pb.ListCompletionsRequest(tenant="acme", limit=9), CONTEXT)
        assert [entry.job.spec.name for entry in feed.completions] == [builders.job_name(2)] * 2


async def test_deleted_jobs_of_the_archive_do_not_end_a_list():
    async with running(upkeep=AT_ONCE) as desk:
        names = [(await finish(desk, builders.spec(number)))[0].spec.name for number in range(1, 5)]
        for name in names:
            await archived(desk, name)
        for name in names[1:3]:
            await desk.rpc.DeleteJob(pb.DeleteJobRequest(job=name), CONTEXT)
        found: list[str] = []
        more = True
        while more:
            request = pb.ListJobsRequest(tenant="acme", page_size=1, before_name=found[-1] if found else "")
            page = await desk.rpc.ListJobs(request, CONTEXT)
            found += [job.spec.name for job in page.jobs]
            more = page.more
        assert found == [names[3], names[0]]
