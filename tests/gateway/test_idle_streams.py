"""What streams cost the gateway that wait for something to happen, or for a client that does not read."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.gateway.client import GatewayClient, pb, prompts
from tests.gateway.conftest import SETTINGS, next_model
from tests.gateway.fake_worker import TERMINAL, FakeWorker
from tests.gateway.waiting import eventually
from tests.system.processes import Stack
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.store import open_store
from tidemill.v1 import job_pb2

STREAMS = 1000
AT_A_TIME = 50
MOST_GROWTH = 200 << 20


@pytest.fixture
async def quiet(tmp_path: Path, tokenizer: bytes) -> AsyncIterator["Quiet"]:
    """Processes that serve nobody else, and what a test needs to use them."""
    stack = Stack(tmp_path, settings={**SETTINGS, "TIDEMILL_GATEWAY_HEARTBEAT_SECONDS": "3"})
    for name in ("scheduler", "gateway"):
        await asyncio.to_thread(stack.start, name)
    store = open_store((stack.home / "store").as_uri())
    try:
        async with (
            FakeWorker(stack.address_of("scheduler"), store, next_model(), tokenizer) as worker,
            GatewayClient(stack.address_of("gateway"), stack.key) as client,
        ):
            yield Quiet(stack, client, worker)
    finally:
        await asyncio.to_thread(stack.close)


class Quiet:
    """A gateway whose memory is watched."""

    def __init__(self, stack: Stack, client: GatewayClient, worker: FakeWorker) -> None:
        self.client = client
        self.worker = worker
        self._process = psutil.Process(stack.running["gateway"].pid)

    def rss(self) -> int:
        return self._process.memory_info().rss

    def watch(self, job: str) -> Any:
        return self.client.jobs.WatchJob(pb.WatchJobRequest(name=job), metadata=self.client.metadata)

    def follow(self, job: str, **fields: Any) -> Any:
        request = pb.ReadResultsRequest(name=job, follow=True, **fields)
        return self.client.jobs.ReadResults(request, metadata=self.client.metadata)


async def create_many(client: GatewayClient, model: str) -> list[str]:
    names: list[str] = []
    for _ in range(STREAMS // AT_A_TIME):
        names += [job.name for job in await asyncio.gather(*(client.create(model) for _ in range(AT_A_TIME)))]
    return names


async def snapshot(call: Any) -> job_pb2.Job:
    """The job as a watcher sees it first; a busy gateway may say earlier that it is there."""
    while (message := await call.read()).heartbeat:
        pass
    return message.job


async def test_a_thousand_watchers_and_a_thousand_followers_are_cheap(quiet: Quiet) -> None:
    """Each of a job of its own: nothing is shared among them."""
    names = await create_many(quiet.client, quiet.worker.model)
    for call in [quiet.watch(names[0]) for _ in range(AT_A_TIME)]:
        await snapshot(call)
        call.cancel()
    before = quiet.rss()
    watchers = [quiet.watch(name) for name in names]
    for start in range(0, STREAMS, AT_A_TIME):
        await asyncio.gather(*(snapshot(call) for call in watchers[start : start + AT_A_TIME]))
    # Heartbeats show that all of them are served.
    beats = await asyncio.gather(*(call.read() for call in watchers))
    assert all(beat.heartbeat for beat in beats)
    watching = quiet.rss() - before
    assert watching < MOST_GROWTH

    followers = [quiet.follow(name) for name in names]
    reads = [asyncio.ensure_future(call.read()) for call in followers]
    # A job that ends tells its follower: so it was followed. The last ones came in last.
    for name in names[-3:]:
        await quiet.client.cancel(name)
    ends = await asyncio.gather(*reads[-3:])
    assert all(frame.end for frame in ends)
    assert quiet.rss() - before - watching < MOST_GROWTH
    assert not any(read.done() for read in reads[:-3])
    for call in (*watchers, *followers):
        call.cancel()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_readers_that_do_not_read_hold_little_and_nobody_up(quiet: Quiet) -> None:
    """Fifty of them before 100 MB of results each, in both orders."""
    job = await quiet.client.submit(job_pb2.Job(model=quiet.worker.model), [prompts(0, 1000)])
    # One chunk at a time: on a machine that is busy with other tests, more would outlive their leases.
    while (await quiet.worker.record(job.name)).state not in TERMINAL:
        for lease in await quiet.worker.lease(1):
            if lease.kind == scheduler_service_pb2.LEASE_KIND_CHUNK:
                rows = range(lease.chunk_start, lease.chunk_start + lease.chunk_rows)
                await quiet.worker.commit(lease, rows, text="x" * 100_000)
            else:
                await quiet.worker.finish(lease)
    orders = [pb.RESULT_ORDER_INPUT, pb.RESULT_ORDER_COMPLETION]
    # What one reading takes at its height is no growth.
    for order in orders:
        assert len(await quiet.client.results(job.name, order=order, start_offset=900)) >= 10
    before = quiet.rss()
    stalled = [quiet.follow(job.name, order=orders[number % 2]) for number in range(50)]
    assert all(frame.results for frame in await asyncio.gather(*(call.read() for call in stalled)))
    got = await asyncio.wait_for(quiet.client.get(job.name), 10)
    assert got.state == job_pb2.JOB_STATE_SUCCEEDED

    async def rss() -> int:
        return quiet.rss()

    await eventually(rss, lambda size: size - before < 50 * (16 << 20))
    frames = await asyncio.gather(*(call.read() for call in stalled[:2]))
    assert all(frame.offset > 0 for frame in frames)
    for call in stalled:
        call.cancel()
