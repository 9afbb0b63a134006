"""The RPCs over a running scheduler: long polls, watches, expiry, the feed, restarts."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from services.scheduler.core.limits import Limits
from services.scheduler.ledger import MemoryLedger, SqliteLedger
from tests.scheduler import builders
from tests.scheduler.fake_clock import FakeClock
from tests.scheduler.fake_ledger import FakeLedger, write_failed
from tests.scheduler.service_desk import CONTEXT, ServiceDesk, key, running, until
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2, model_service_pb2

JOB = builders.job_name()


async def refused(awaitable: object) -> TidemillError:
    with pytest.raises(TidemillError) as caught:
        await awaitable  # pyright: ignore[reportGeneralTypeIssues]
    return caught.value


async def test_a_job_from_creation_to_success():
    async with running() as desk:
        job = await desk.queue()
        record = await desk.answer_all(job)
        assert record.state == job_pb2.JOB_STATE_SUCCEEDED
        assert record.row_counts == job_pb2.RowCounts(total=25, succeeded=25)
        segments = await desk.rpc.ListSegments(pb.ListSegmentsRequest(job=job, limit=10), CONTEXT)
        assert [segment.count for segment in segments.segments] == [25]
        parts = await desk.rpc.ListParts(pb.ListPartsRequest(job=job, limit=2), CONTEXT)
        assert [part.row_count for part in parts.parts] == [10, 10]
        assert parts.more
        assert parts.state == job_pb2.JOB_STATE_SUCCEEDED
        rest = await desk.rpc.ListParts(pb.ListPartsRequest(job=job, after_part=2, limit=2), CONTEXT)
        assert ([part.row_count for part in rest.parts], rest.more) == ([5], False)


async def test_create_returns_the_job_of_the_same_request():
    async with running() as desk:
        first = await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(1, request_id="r")), CONTEXT)
        again = await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(2, request_id="r")), CONTEXT)
        assert again == first


async def test_a_writer_learns_where_to_go_on():
    async with running() as desk:
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec()), CONTEXT)
        first = await desk.rpc.OpenWriter(pb.OpenWriterRequest(job=JOB), CONTEXT)
        assert (first.writer_epoch, first.next_offset, list(first.merkle_frontier)) == (1, 0, [])
        committed = await desk.rpc.CommitSegment(builders.segment(JOB, 0, 7), CONTEXT)
        assert committed.next_offset == 7
        second = await desk.rpc.OpenWriter(pb.OpenWriterRequest(job=JOB), CONTEXT)
        assert (second.writer_epoch, second.next_offset) == (2, 7)
        assert tuple(second.merkle_frontier) == builders.frontier(7)
        assert second.job.next_offset == 7


async def test_a_waiting_worker_wakes_on_new_work():
    async with running() as desk:
        poll = asyncio.create_task(desk.lease(wait=30))
        done, _ = await asyncio.wait([poll], timeout=0.05)
        assert not done
        await desk.queue()
        async with asyncio.timeout(5):
            (lease,) = await poll
        assert lease.chunk_start == 0


async def test_a_poll_without_work_ends_empty():
    async with running() as desk:
        assert await desk.lease(wait=0.05) == []


async def test_a_waiting_worker_wakes_on_returned_work_and_freed_caps():
    async with running(limits=Limits(chunk_rows=10, max_leases=1)) as desk:
        await desk.queue()
        (lease,) = await desk.lease()
        poll = asyncio.create_task(desk.lease(wait=30, worker="w2"))
        await asyncio.sleep(0)
        await desk.commit(builders.part(lease, set(range(10))))
        (second,) = await poll
        assert second.chunk_start == 10
        poll = asyncio.create_task(desk.lease(wait=30))
        await asyncio.sleep(0)
        await desk.rpc.ReleaseLease(pb.ReleaseLeaseRequest(lease=key(second)), CONTEXT)
        (third,) = await poll
        assert (third.chunk_start, third.attempt) == (10, 1)


async def test_a_waiting_worker_does_not_spin():
    time = FakeClock()
    async with running(time=time) as desk:
        poll = asyncio.create_task(desk.lease(wait=30))
        await asyncio.wait([poll], timeout=0.05)
        await desk.queue(builders.spec(model="other"))
        time.looks = 0
        done, _ = await asyncio.wait([poll], timeout=0.1)
        assert not done
        assert time.looks < 20
        poll.cancel()


async def test_work_granted_to_a_call_that_ended_goes_back():
    ledger = FakeLedger()
    async with running(ledger) as desk:
        await desk.queue()
        ledger.gate.clear()
        ledger.entered.clear()
        poll = asyncio.create_task(desk.lease())
        assert await asyncio.to_thread(ledger.entered.wait, 10)
        poll.cancel()
        await asyncio.wait([poll])
        ledger.gate.set()
        (lease,) = await desk.lease(wait=5, worker="w2")
        assert (lease.chunk_start, lease.attempt) == (0, 1)


async def test_a_lease_not_extended_expires_and_one_extended_does_not():
    time = FakeClock()
    async with running(time=time) as desk:
        await desk.queue()
        kept, lost = await desk.lease(2)
        time.advance(10)
        assert await desk.extend([kept]) == []
        poll = asyncio.create_task(desk.lease(wait=30, worker="w2"))
        await until(lambda: has_leases(desk, 3))
        poll.cancel()
        time.advance(5.5)
        desk.wake_timer()
        await until(lambda: is_void(desk, lost))
        assert await desk.extend([kept, lost]) == [lost.fence]
        assert lost.fence not in desk.scheduler.leases.due(time.monotonic)
        assert (await refused(desk.commit(builders.part(lost, {1})))).reason is Reason.STALE_FENCE
        await desk.commit(builders.part(kept, {1}))


async def test_expiry_outlasts_a_failing_ledger():
    time = FakeClock()
    ledger = FakeLedger()
    async with running(ledger, time=time) as desk:
        await desk.queue()
        (lease,) = await desk.lease()
        ledger.fail_before = write_failed()
        time.advance(15.5)
        desk.wake_timer()
        # The rebuilt state restarts nothing that it knew: the lease stays due and goes at the next try.
        await until(lambda: is_void(desk, lease))
        assert ledger.fail_before is None


async def has_leases(desk: ServiceDesk, number: int) -> bool:
    return len(desk.scheduler.engine.state.leases) >= number


async def is_void(desk: ServiceDesk, lease: pb.Lease) -> bool:
    return lease.fence not in desk.scheduler.engine.state.leases


async def test_another_worker_cannot_extend():
    async with running() as desk:
        await desk.queue()
        (lease,) = await desk.lease()
        assert await desk.extend([lease], "w2") == [lease.fence]


async def test_a_stalled_scheduler_expires_nobody():
    time = FakeClock()
    async with running(time=time) as desk:
        await desk.queue()
        (lease,) = await desk.lease()
        time.advance(60)
        desk.wake_timer()
        await until(lambda: expires_after(desk, time.monotonic))
        assert await desk.extend([lease]) == []


async def expires_after(desk: ServiceDesk, moment: float) -> bool:
    expiry = desk.scheduler.leases.next_expiry()
    return expiry is not None and expiry > moment


async def test_an_unsealed_job_expires_after_a_day():
    time = FakeClock()
    async with running(time=time) as desk:
        await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec()), CONTEXT)
        time.advance(24 * 3600 + 1)
        desk.wake_timer()
        await until(lambda: in_state(desk, JOB, job_pb2.JOB_STATE_EXPIRED))


async def in_state(desk: ServiceDesk, job: str, state: int) -> bool:
    return (await desk.job(job)).state == state


async def test_a_watch_follows_a_job_and_ends_with_it():
    async with running() as desk:
        job = await desk.queue()
        seen: list[records_pb2.JobRecord] = []

        async def follow() -> None:
            async for response in desk.watch(job):
                seen.append(response.job)

        watch = asyncio.create_task(follow())
        await until(lambda: has_seen(seen, 1))
        await desk.answer_all(job)
        async with asyncio.timeout(5):
            await watch
        revisions = [record.revision for record in seen]
        assert revisions == sorted(set(revisions))
        assert seen[-1].state == job_pb2.JOB_STATE_SUCCEEDED
        # Eight events in well under a second are coalesced.
        assert len(seen) <= 5
        assert [r async for r in desk.watch(job, seen[-1].revision)] == []
        assert [r.job.revision async for r in desk.watch(job, 1)] == [seen[-1].revision]


async def has_seen(seen: list[records_pb2.JobRecord], number: int) -> bool:
    return len(seen) >= number


async def test_a_watch_shows_that_the_model_is_loading():
    async with running() as desk:
        job = await desk.queue()
        watch = desk.watch(job)
        assert (await anext(watch)).job.phase == job_pb2.JOB_PHASE_WAITING
        loading = builders.report("tiny", model_service_pb2.MODEL_STATE_LOADING)
        await desk.rpc.ExtendLeases(pb.ExtendLeasesRequest(worker_id="w1", models=[loading]), CONTEXT)
        async with asyncio.timeout(5):
            assert (await anext(watch)).job.phase == job_pb2.JOB_PHASE_LOADING_MODEL


async def test_a_watch_of_an_unknown_job_is_refused():
    async with running() as desk:
        assert (await refused(anext(desk.watch(JOB)))).reason is Reason.JOB_NOT_FOUND


async def test_draining_answers_polls_and_ends_watches():
    async with running() as desk:
        job = await desk.queue(builders.spec(model="other"))
        poll = asyncio.create_task(desk.lease(wait=30))
        watch = desk.watch(job)
        await anext(watch)
        end = asyncio.create_task(refused(anext(watch)))
        done, _ = await asyncio.wait([poll, end], timeout=0.05)
        assert not done
        await desk.scheduler.drain()
        async with asyncio.timeout(5):
            assert await poll == []
            assert (await end).reason is Reason.UNAVAILABLE
        assert await desk.lease(wait=30) == []


async def test_the_feed_reports_accepted_and_finished_jobs():
    async with running() as desk:
        job = await desk.queue(rows=5)
        await desk.answer_all(job)
        request = pb.ListCompletionsRequest(tenant="acme", limit=1)
        first = await desk.rpc.ListCompletions(request, CONTEXT)
        request.after_sequence = first.next_sequence
        second = await desk.rpc.ListCompletions(request, CONTEXT)
        request.after_sequence = second.next_sequence
        third = await desk.rpc.ListCompletions(request, CONTEXT)
        kinds = [entry.kind for entry in (*first.completions, *second.completions)]
        assert kinds == [1, 2]
        assert first.completions[0].job.state == job_pb2.JOB_STATE_SUCCEEDED
        assert (len(third.completions), third.next_sequence) == (0, second.next_sequence)
        assert first.ledger_uid == third.ledger_uid != ""


async def test_jobs_are_paged():
    async with running() as desk:
        for number in range(1, 6):
            await desk.rpc.CreateJob(pb.CreateJobRequest(spec=builders.spec(number)), CONTEXT)
        request = pb.ListJobsRequest(tenant="acme", page_size=3)
        first = await desk.rpc.ListJobs(request, CONTEXT)
        request.before_name = first.jobs[-1].spec.name
        second = await desk.rpc.ListJobs(request, CONTEXT)
        names = [job.spec.name for job in (*first.jobs, *second.jobs)]
        assert names == [builders.job_name(number) for number in (5, 4, 3, 2, 1)]
        assert (first.more, second.more) == (True, False)


async def test_a_pause_reaches_the_worker_who_gives_its_leases_back():
    async with running() as desk:
        job = await desk.queue(rows=10)
        (lease,) = await desk.lease()
        request = pb.ExtendLeasesRequest(worker_id="w1", leases=[key(lease)], models=[builders.report()])
        assert not (await desk.rpc.ExtendLeases(request, CONTEXT)).stopping
        await desk.rpc.PauseJob(pb.PauseJobRequest(job=job), CONTEXT)
        response = await desk.rpc.ExtendLeases(request, CONTEXT)
        assert ([each.fence for each in response.stopping], list(response.void)) == ([lease.fence], [])
        assert not (await desk.commit(builders.part(lease, {0, 1}, chunk=(0, 10)))).chunk_done
        await desk.rpc.ReleaseLease(pb.ReleaseLeaseRequest(lease=key(lease)), CONTEXT)
        assert await desk.lease() == []
        await desk.rpc.ResumeJob(pb.ResumeJobRequest(job=job), CONTEXT)
        (again,) = await desk.lease()
        assert (again.chunk_start, again.attempt) == (0, 1)


async def test_cancel_reaches_the_worker_and_closes_the_job():
    async with running() as desk:
        job = await desk.queue(rows=10)
        (lease,) = await desk.lease()
        record = await desk.rpc.CancelJob(pb.CancelJobRequest(job=job), CONTEXT)
        assert record.state == job_pb2.JOB_STATE_CANCELLING
        request = pb.ExtendLeasesRequest(worker_id="w1", leases=[key(lease)], models=[builders.report()])
        response = await desk.rpc.ExtendLeases(request, CONTEXT)
        assert ([each.fence for each in response.stopping], list(response.void)) == ([lease.fence], [])
        assert await desk.lease() == []
        # The grace of two seconds passes in real time here.
        (closing,) = await desk.lease(wait=10)
        assert await desk.extend([lease]) == [lease.fence]
        part = builders.part(closing, set(range(10)), chunk=(0, 10), outcome="cancelled")
        assert (await desk.commit(part)).chunk_done
        assert (await desk.commit(part)).duplicate
        record = await desk.rpc.FinishJob(builders.finish(closing, records_pb2.RowTally(cancelled=10)), CONTEXT)
        assert record.state == job_pb2.JOB_STATE_CANCELLED


async def test_models_come_from_live_workers():
    async with running() as desk:
        await desk.lease(models=[builders.report("b"), builders.report("a")])
        models = await desk.rpc.ListModels(pb.ListModelsRequest(), CONTEXT)
        assert [report.model for report in models.models] == ["a", "b"]
        assert list(models.workers) == [1, 1]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("LeaseChunks", pb.LeaseChunksRequest(worker_id="w", max_chunks=0)),
        ("LeaseChunks", pb.LeaseChunksRequest(max_chunks=1)),
        ("ExtendLeases", pb.ExtendLeasesRequest()),
        ("ListJobs", pb.ListJobsRequest(tenant="acme")),
        ("ListSegments", pb.ListSegmentsRequest(job=JOB, limit=1001)),
        ("ListParts", pb.ListPartsRequest(job=JOB)),
        ("ListParts", pb.ListPartsRequest(job=JOB, limit=1, after_part=-1)),
        ("LeaseChunks", pb.LeaseChunksRequest(worker_id="w", max_chunks=1, wait=Duration(seconds=31))),
        ("LeaseChunks", pb.LeaseChunksRequest(worker_id="w", max_chunks=1, wait=Duration(seconds=-1))),
        ("ListCompletions", pb.ListCompletionsRequest(tenant="acme", limit=501)),
        ("ReleaseLease", pb.ReleaseLeaseRequest(fatal_reason="not upper snake")),
        ("CreateJob", pb.CreateJobRequest()),
        ("ListJobs", pb.ListJobsRequest(tenant="No Tenant", page_size=1)),
    ],
)
async def test_nonsense_is_refused(method: str, request_: object):
    async with running() as desk:
        error = await refused(getattr(desk.rpc, method)(request_, CONTEXT))
        assert error.reason in (Reason.INVALID_ARGUMENT, Reason.INVALID_NAME)


async def test_a_restart_keeps_everything_but_the_time_of_leases(tmp_path: Path):
    time = FakeClock()
    path = tmp_path / "ledger.sqlite3"
    async with running(SqliteLedger(path), time=time) as desk:
        job = await desk.queue()
        (lease,) = await desk.lease()
        await desk.commit(builders.part(lease, {0, 1}))
        before = await desk.job(job)
        feed = await desk.rpc.ListCompletions(pb.ListCompletionsRequest(tenant="acme", limit=9), CONTEXT)
    time.advance(14)
    async with running(SqliteLedger(path), time=time) as desk:
        assert await desk.job(job) == before
        again = await desk.rpc.ListCompletions(pb.ListCompletionsRequest(tenant="acme", limit=9), CONTEXT)
        assert again == feed
        time.advance(14)
        desk.wake_timer()
        assert await desk.extend([lease]) == []
        assert (await desk.commit(builders.part(lease, {0, 1}))).duplicate
        await desk.commit(builders.part(lease, {2}, number=1))
    async with running(SqliteLedger(path), time=time) as desk:
        time.advance(15.5)
        desk.wake_timer()
        await until(lambda: is_void(desk, lease))


async def test_a_failed_append_grants_nothing():
    ledger = FakeLedger(MemoryLedger())
    async with running(ledger) as desk:
        await desk.queue()
        ledger.fail_before = write_failed()
        assert (await refused(desk.lease())).reason is Reason.LEDGER_WRITE_FAILED
        (lease,) = await desk.lease()
        assert (lease.chunk_start, lease.attempt) == (0, 1)


async def test_readiness_tells_what_is_wrong():
    ledger = FakeLedger()
    async with running(ledger) as desk:
        assert desk.scheduler.readiness().ready
        ledger.fail_before = ledger.fail_reads = write_failed()
        await refused(desk.queue())
        readiness = desk.scheduler.readiness()
        assert not readiness.ready
        assert readiness.details["reason"] == "LEDGER_WRITE_FAILED"
        ledger.fail_reads = None


async def test_a_clock_that_is_set_back_keeps_nothing_waiting():
    time = FakeClock()
    async with running(time=time) as desk:
        job = await desk.queue(rows=5)
        (lease,) = await desk.lease()
        time.wall -= 3 * 3600
        await desk.commit(builders.part(lease, {0, 1}))
        await desk.rpc.CancelJob(pb.CancelJobRequest(job=job), CONTEXT)
        time.advance(3)
        desk.scheduler.timer.poke()

        async def ending() -> bool:
            return bool(await desk.extend([lease]))

        await until(ending)
        (closing,) = await desk.lease()
        assert closing.kind == pb.LEASE_KIND_FINALISE


async def test_a_step_that_breaks_before_it_records_fails_alone():
    async with running() as desk:
        job = await desk.queue()

        def broken(_turn: object) -> None:
            raise ZeroDivisionError

        engine = desk.scheduler.engine
        state = engine.peek()
        read = desk.rpc.GetJob(pb.GetJobRequest(job=job), CONTEXT)
        error, record = await asyncio.gather(refused(engine.execute(broken)), read)
        assert error.reason is Reason.INTERNAL
        assert record.spec.name == job
        assert engine.peek() is state
