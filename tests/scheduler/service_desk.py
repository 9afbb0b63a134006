"""Drives the whole scheduler by its RPC handlers, inside the test's own event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from services.scheduler.app import Scheduler
from services.scheduler.core.limits import Limits
from services.scheduler.core.quotas import Quotas
from services.scheduler.ledger import Ledger, MemoryLedger
from services.scheduler.service import SchedulerService
from services.scheduler.upkeep import Upkeep
from tests.scheduler import builders
from tests.scheduler.fake_clock import FakeClock
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

CONTEXT = cast("Any", None)
"""The handlers look at no context."""


class ServiceDesk:
    """A running scheduler and shorthands for its calls."""

    def __init__(self, scheduler: Scheduler, time: FakeClock | None = None) -> None:
        self.scheduler = scheduler
        self.time = time

    @property
    def rpc(self) -> SchedulerService:
        return self.scheduler.service

    async def queue(self, spec: records_pb2.JobSpec | None = None, rows: int = 25) -> str:
        """Create, fill and seal a job."""
        job = (await self.rpc.CreateJob(pb.CreateJobRequest(spec=spec or builders.spec()), CONTEXT)).spec.name
        await self.rpc.OpenWriter(pb.OpenWriterRequest(job=job), CONTEXT)
        await self.rpc.CommitSegment(builders.segment(job, 0, rows), CONTEXT)
        await self.rpc.SealJob(builders.seal(job, rows), CONTEXT)
        return job

    async def lease(
        self,
        count: int = 1,
        wait: float = 0,
        worker: str = "w1",
        models: Sequence[records_pb2.ModelReport] = (),
    ) -> list[pb.Lease]:
        request = pb.LeaseChunksRequest(worker_id=worker, models=models or [builders.report()], max_chunks=count)
        request.wait.FromMilliseconds(int(wait * 1000))
        return list((await self.rpc.LeaseChunks(request, CONTEXT)).leases)

    async def extend(self, leases: Sequence[pb.Lease], worker: str = "w1") -> list[int]:
        """Fences among the leases that are void."""
        request = pb.ExtendLeasesRequest(
            worker_id=worker, leases=[key(lease) for lease in leases], models=[builders.report()]
        )
        return [void.fence for void in (await self.rpc.ExtendLeases(request, CONTEXT)).void]

    async def commit(self, request: pb.CommitPartRequest) -> pb.CommitPartResponse:
        return await self.rpc.CommitPart(request, CONTEXT)

    async def job(self, name: str) -> records_pb2.JobRecord:
        return await self.rpc.GetJob(pb.GetJobRequest(job=name), CONTEXT)

    def watch(self, name: str, after: int = 0) -> AsyncIterator[pb.WatchJobResponse]:
        return self.rpc.WatchJob(pb.WatchJobRequest(job=name, after_revision=after), CONTEXT)

    async def answer_all(self, name: str) -> records_pb2.JobRecord:
        """Work a job off and close it."""
        while True:
            (lease,) = await self.lease(wait=5)
            if lease.kind == pb.LEASE_KIND_FINALISE:
                break
            await self.commit(builders.part(lease, set(range(lease.chunk_rows))))
        record = await self.job(name)
        counts, usage = record.row_counts, record.usage
        tally = records_pb2.RowTally(
            succeeded=counts.succeeded, prompt_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens
        )
        return await self.rpc.FinishJob(builders.finish(lease, tally), CONTEXT)

    def wake_timer(self) -> None:
        """Let the timer look at the clock that was just turned."""
        self.scheduler.timer.poke()


def key(lease: pb.Lease) -> pb.LeaseKey:
    """The lease's name in calls."""
    return pb.LeaseKey(job=lease.spec.name, fence=lease.fence)


@asynccontextmanager
async def running(
    ledger: Ledger | None = None,
    *,
    limits: Limits | None = None,
    time: FakeClock | None = None,
    ttl: float = 15.0,
    quotas: Quotas | None = None,
    upkeep: Upkeep | None = None,
) -> AsyncGenerator[ServiceDesk]:
    """A scheduler that serves, until the block ends."""
    scheduler = Scheduler(
        ledger or MemoryLedger(),
        limits or Limits(chunk_rows=10),
        ttl,
        time.clock() if time else None,
        quotas=quotas,
        upkeep=upkeep,
    )
    await scheduler.start()
    try:
        yield ServiceDesk(scheduler, time)
    finally:
        await scheduler.drain()
        await scheduler.close()


async def until(condition: Any, seconds: float = 10) -> None:
    """Wait until the asynchronous `condition` holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is awaited may be in another process
            await asyncio.sleep(0.01)
