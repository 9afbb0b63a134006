"""A client of scheduler processes: single calls, calls that are repeated, and what a worker does with them."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc

from tests.scheduler import builders
from tidemill.channel import call
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2_grpc
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.leaders import open_leader_channel
from tidemill.status import STATUS_OF

DEADLINE = 60.0
"""Longest wait for an answer, in seconds: the machine may be busy, and another scheduler may have to take over."""


class Caller:
    """Calls the scheduler at one address, or of several addresses whichever leads."""

    def __init__(self, addresses: str) -> None:
        self.channel = open_leader_channel(addresses)
        self.stub: Any = scheduler_service_pb2_grpc.SchedulerServiceStub(self.channel)

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(None)

    async def once(self, method: str, request: Any, seconds: float = 20) -> Any:
        """One attempt."""
        return await call(getattr(self.stub, method), request, timeout=seconds)

    async def call(self, method: str, request: Any, patience: float = DEADLINE) -> Any:
        """Repeat while nobody answers."""
        end = time.monotonic() + patience
        while True:
            try:
                return await self.once(method, request)
            except TidemillError as error:
                if not passes(error) or time.monotonic() > end:
                    raise
            await asyncio.sleep(0.05)

    async def until_there_is_room(self, method: str, request: Any) -> Any:
        """What a client does when the ledger is full: try again when it is told to."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return await self.call(method, request)
            except TidemillError as error:
                if error.reason is not Reason.LEDGER_FULL or time.monotonic() > end:
                    raise
            await asyncio.sleep(0.2)

    async def queue(self, spec: records_pb2.JobSpec, rows: int) -> str:
        """Create, fill and seal a job."""
        await self.call("CreateJob", pb.CreateJobRequest(spec=spec))
        await self.call("OpenWriter", pb.OpenWriterRequest(job=spec.name))
        await self.call("CommitSegment", builders.segment(spec.name, 0, rows))
        await self.call("SealJob", builders.seal(spec.name, rows))
        return spec.name

    async def lease(self, count: int = 1, wait: int = 5) -> Sequence[pb.Lease]:
        """Work, if some comes within `wait` seconds."""
        request = pb.LeaseChunksRequest(worker_id="w1", models=[builders.report()], max_chunks=count)
        request.wait.FromSeconds(wait)
        return list((await self.once("LeaseChunks", request, wait + 20)).leases)

    async def answer(self, lease: pb.Lease, done: frozenset[int] = frozenset()) -> None:
        """Commit all rows of a chunk but those that are done."""
        rows = set(range(lease.chunk_rows)) - done
        await self.call("CommitPart", builders.part(lease, rows, number=1))

    async def close(self, job: str) -> records_pb2.JobRecord:
        """Finish a job whose rows have their results."""
        (closing,) = await self.lease()
        assert closing.kind == pb.LEASE_KIND_FINALISE
        record = await self.call("GetJob", pb.GetJobRequest(job=job))
        tally = records_pb2.RowTally(
            succeeded=record.row_counts.succeeded,
            prompt_tokens=record.usage.prompt_tokens,
            output_tokens=record.usage.output_tokens,
        )
        return await self.call("FinishJob", builders.finish(closing, tally))


def passes(error: TidemillError) -> bool:
    """Whether the same call may succeed later; it may also have been carried out."""
    return STATUS_OF[error.reason] in _PASSING


_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
