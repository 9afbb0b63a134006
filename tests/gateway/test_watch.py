"""`WatchJob` through a real client."""

import time
from typing import Any

from tests.gateway.client import EOF, GatewayClient, collect, pb, prompts, refused
from tests.gateway.fake_worker import FakeWorker
from tidemill.v1 import job_pb2


def watch(client: GatewayClient, name: str, after_revision: int = 0) -> Any:
    request = pb.WatchJobRequest(name=name, after_revision=after_revision)
    return client.jobs.WatchJob(request, metadata=client.metadata, timeout=30)


async def test_snapshots_rise_to_the_terminal_one(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 200)])
    call = watch(client, job.name)
    first = await call.read()
    assert first.job.state == job_pb2.JOB_STATE_QUEUED
    await worker.run()
    rest = [message for message in await collect(call) if not message.heartbeat]
    assert rest[-1].job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert rest[-1].job.row_counts.succeeded == 200
    revisions = [message.revision for message in rest]
    assert revisions == sorted(revisions)
    assert all(message.job.revision == message.revision for message in rest)


async def test_at_most_ten_snapshots_a_second(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    call = watch(client, job.name)
    started = time.monotonic()
    stream = await client.append(job.name)
    for start in range(60):
        await stream.send(start, prompts(start, 1))
        await stream.send(0, [])
        await stream.acked(start + 1)
    await client.cancel(job.name)
    await worker.run()
    snapshots = [message for message in await collect(call) if not message.heartbeat]
    assert len(snapshots) <= 3 + (time.monotonic() - started) * 10
    assert snapshots[-1].job.state == job_pb2.JOB_STATE_CANCELLED


async def test_silence_is_filled_with_heartbeats(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    call = watch(client, job.name, after_revision=job.revision)
    for _ in range(2):
        message = await call.read()
        assert message.heartbeat
        assert not message.HasField("job")
        assert message.revision == job.revision
    await client.fill(job.name, prompts(0, 1))
    while (message := await call.read()).job.next_offset < 1:
        assert message.heartbeat or message.revision > job.revision


async def test_a_finished_job_ends_the_stream_at_once(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    cancelled = await client.cancel(job.name)
    (snapshot,) = await collect(watch(client, job.name))
    assert snapshot.job == cancelled
    assert await watch(client, job.name, after_revision=cancelled.revision).read() is EOF


async def test_bad_watch_requests(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    with refused("INVALID_ARGUMENT"):
        await collect(watch(client, job.name, after_revision=-1))
    with refused("JOB_NOT_FOUND"):
        await collect(watch(client, "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"))
