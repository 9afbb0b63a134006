"""The real process: driven by gRPC, killed, restarted, drained."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import context as otel_context

from services.scheduler.service import NAME
from tests.scheduler import builders
from tests.scheduler.caller import Caller
from tests.scheduler.scheduler_process import SchedulerProcess
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2

TRACE = "5af1" * 8


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, chunk_rows=10, lease_seconds=2)
    await process.start()
    yield process
    await process.kill()


async def test_a_kill_loses_nothing_that_was_acknowledged(process: SchedulerProcess):
    spec = builders.spec()
    async with Caller(process.address) as caller:
        job = await caller.queue(spec, 45)
        first, second = await caller.lease(2)
        await caller.call("CommitPart", builders.part(first, {0, 1, 2}))
        before = await caller.call("GetJob", pb.GetJobRequest(job=job))
    await process.kill()
    await process.start()
    async with Caller(process.address) as caller:
        assert await caller.call("GetJob", pb.GetJobRequest(job=job)) == before
        duplicate = await caller.call("CommitPart", builders.part(first, {0, 1, 2}))
        assert duplicate.duplicate
        # The worker goes on under the fences it has.
        await caller.answer(first, frozenset({0, 1, 2}))
        # The other lease is not extended: it expires and its chunk comes back, under a higher fence.
        seen: dict[int, pb.Lease] = {}
        while len(seen) < 4:
            for lease in await caller.lease(4, wait=5):
                seen[lease.chunk_start] = lease
                if lease.chunk_start != second.chunk_start:
                    await caller.answer(lease)
        again = seen[second.chunk_start]
        assert again.fence > second.fence
        assert again.attempt == 2
        with pytest.raises(TidemillError) as caught:
            await caller.answer(second)
        assert caught.value.reason is Reason.STALE_FENCE
        await caller.answer(again)
        record = await caller.close(job)
        assert record.state == job_pb2.JOB_STATE_SUCCEEDED
        assert record.row_counts == job_pb2.RowCounts(total=45, succeeded=45)


async def test_a_second_scheduler_is_refused(process: SchedulerProcess, tmp_path: Path):
    status, output = await SchedulerProcess(tmp_path).run()
    assert status == 1
    assert "LEDGER_LOCKED" in output
    assert "stop that scheduler" in output


async def test_sigterm_drains(process: SchedulerProcess):
    async with Caller(process.address) as caller:
        await caller.queue(builders.spec(model="other"), 5)
        poll = asyncio.create_task(caller.lease(wait=30))
        stub: Any = health_pb2_grpc.HealthStub(caller.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = caller.stub.WatchJob(pb.WatchJobRequest(job=builders.job_name()))
        assert (await watch.read()).job.state == job_pb2.JOB_STATE_QUEUED
        async with asyncio.timeout(20):
            assert await process.stop() == 0
        assert await poll == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def fetch(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
        return response.read().decode()


async def test_operators_see_jobs_rows_and_readiness(process: SchedulerProcess):
    async with Caller(process.address) as caller:
        job = await caller.queue(builders.spec(), 10)
        (lease,) = await caller.lease()
        await caller.answer(lease)
        await caller.close(job)
        await caller.queue(builders.spec(2), 10)
        await caller.lease()
    text = await asyncio.to_thread(fetch, process.http_address, "/metrics")
    for line in (
        'tidemill_scheduler_jobs{model="tiny",state="succeeded",tenant="acme"} 1.0',
        'tidemill_scheduler_jobs{model="tiny",state="running",tenant="acme"} 1.0',
        'tidemill_scheduler_rows_total{model="tiny",outcome="succeeded",tenant="acme"} 10.0',
        'tidemill_scheduler_open_leases{kind="chunk"} 1.0',
        'tidemill_scheduler_lease_wait_seconds_count{model="tiny"} 2.0',
    ):
        assert line in text
    assert "tidemill_scheduler_ledger_append_seconds_bucket" in text
    assert "tidemill_scheduler_group_events_bucket" in text
    assert json.loads(await asyncio.to_thread(fetch, process.http_address, "/readyz"))["ready"]


async def test_the_spans_of_a_job_are_in_its_trace(process: SchedulerProcess, tmp_path: Path):
    spec = builders.spec()
    spec.traceparent = f"00-{TRACE}-{'2' * 16}-01"
    async with Caller(process.address) as caller:
        job = await caller.queue(spec, 10)
        (lease,) = await caller.lease()
        worker = telemetry.context_from_traceparent(f"00-{'3' * 32}-{'4' * 16}-01")
        token = otel_context.attach(worker)
        await caller.answer(lease)
        otel_context.detach(token)
        await caller.close(job)
    await process.stop()
    lines = (tmp_path / "telemetry" / "scheduler.spans.jsonl").read_text().splitlines()
    spans = [json.loads(line) for line in lines]
    of_job = {span["name"] for span in spans if span["context"]["trace_id"] == f"0x{TRACE}"}
    assert of_job >= {"scheduler.create", "scheduler.seal", "scheduler.lease", "scheduler.commit", "scheduler.finish"}
    commit = next(span for span in spans if span["name"] == "scheduler.commit")
    assert commit["parent_id"] == "0x" + "2" * 16
    # The call of a worker that traces is linked; calls that bring no trace leave no span of their own.
    [link] = commit["links"]
    assert link["context"]["trace_id"] == "0x" + "3" * 32
    calls = [span for span in spans if span["name"].startswith("tidemill.internal.v1.")]
    assert [span["name"].rpartition("/")[2] for span in calls] == ["CommitPart"]
