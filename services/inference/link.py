"""The scheduler as this worker calls it."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf import duration_pb2

from tidemill import channel, leaders, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2_grpc
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.tls import TlsFiles

__all__ = ["LeaseVoidError", "SchedulerLink", "is_transient"]

log = telemetry.logger(__name__)

_TRANSIENT = frozenset(
    {
        Reason.UNAVAILABLE,
        Reason.OVERLOADED,
        Reason.DEADLINE_EXCEEDED,
        Reason.CANCELLED,
        Reason.LEDGER_FENCED,
        Reason.LEDGER_FULL,
        Reason.LEDGER_WRITE_FAILED,
        Reason.NOT_LEADER,
        Reason.STORE_FAILED,
    }
)
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 2.0
_PAGE = 1000
_CALL_SECONDS = 10.0
# More than a call may take; a worker that makes none for so long is stuck.
_FRESH_SECONDS = 30.0


class LeaseVoidError(Exception):
    """The lease is not ours any more: abort its rows, commit nothing."""


def is_transient(error: TidemillError) -> bool:
    """Whether the same call may succeed later."""
    return error.reason in _TRANSIENT


class SchedulerLink:
    """Calls of one worker."""

    def __init__(self, address: str, worker_id: str, tls: TlsFiles | None = None) -> None:
        self._channel = leaders.open_leader_channel(address, tls=tls)
        self._stub: Any = scheduler_service_pb2_grpc.SchedulerServiceStub(self._channel)
        self._worker_id = worker_id
        self._answered_at = -math.inf

    @property
    def answered(self) -> bool:
        """Whether the last call got through, not long ago: the worker calls twice a second."""
        return time.monotonic() - self._answered_at < _FRESH_SECONDS

    async def lease(
        self, models: Sequence[records_pb2.ModelReport], max_chunks: int, wait_seconds: float
    ) -> list[pb.Lease]:
        """Wait for work."""
        wait = duration_pb2.Duration()
        wait.FromTimedelta(timedelta(seconds=wait_seconds))
        request = pb.LeaseChunksRequest(worker_id=self._worker_id, models=models, max_chunks=max_chunks, wait=wait)
        response = await self._call(self._stub.LeaseChunks, request, wait_seconds + _CALL_SECONDS)
        return list(response.leases)

    async def extend(
        self, leases: Sequence[pb.LeaseKey], models: Sequence[records_pb2.ModelReport]
    ) -> pb.ExtendLeasesResponse:
        """Keep leases alive; returns those that are void or about to be, and which models to keep or unload."""
        request = pb.ExtendLeasesRequest(worker_id=self._worker_id, leases=leases, models=models)
        return await self._call(self._stub.ExtendLeases, request, _CALL_SECONDS)

    async def commit(self, request: pb.CommitPartRequest, void: asyncio.Event) -> pb.CommitPartResponse:
        """Make a part visible; repeated while the scheduler is away, which is harmless, until the lease is void."""
        return await self._persist(self._stub.CommitPart, request, void)

    async def finish(self, request: pb.FinishJobRequest, void: asyncio.Event) -> records_pb2.JobRecord:
        """Make the job terminal; repeated likewise."""
        return await self._persist(self._stub.FinishJob, request, void)

    async def finish_cleanup(self, request: pb.FinishCleanupRequest, void: asyncio.Event) -> None:
        """End a cleanup task; repeated likewise."""
        await self._persist(self._stub.FinishCleanup, request, void)

    async def release(self, request: pb.ReleaseLeaseRequest) -> None:
        """Give a lease back, with one try: it expires by itself when the scheduler is away."""
        try:
            await self._call(self._stub.ReleaseLease, request, 2.0)
        except TidemillError as error:
            log.warning("lease not released", job=request.lease.job, fence=request.lease.fence, error=str(error))

    async def parts(self, job: str, void: asyncio.Event) -> list[records_pb2.PartRef]:
        """All parts of a job in commit order."""
        found: list[records_pb2.PartRef] = []
        more = True
        while more:
            request = pb.ListPartsRequest(job=job, after_part=len(found), limit=_PAGE)
            page: pb.ListPartsResponse = await self._persist(self._stub.ListParts, request, void)
            found.extend(page.parts)
            more = page.more and bool(page.parts)
        return found

    async def segments(self, job: str, void: asyncio.Event) -> list[records_pb2.SegmentRef]:
        """All input segments of a job by start."""
        found: list[records_pb2.SegmentRef] = []
        async for segment in self._segments(job, void):
            found.append(segment)
        return found

    async def _segments(self, job: str, void: asyncio.Event) -> AsyncIterator[records_pb2.SegmentRef]:
        after, more = 0, True
        while more:
            request = pb.ListSegmentsRequest(job=job, after_row=after, limit=_PAGE)
            page: pb.ListSegmentsResponse = await self._persist(self._stub.ListSegments, request, void)
            for segment in page.segments:
                after = segment.start + segment.count
                yield segment
            more = page.more and bool(page.segments)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def _persist(self, method: Callable[..., Awaitable[Any]], request: Any, void: asyncio.Event) -> Any:
        pause = _FIRST_PAUSE_SECONDS
        while not void.is_set():
            try:
                return await self._call(method, request, _CALL_SECONDS)
            except TidemillError as error:
                if error.reason in (Reason.STALE_FENCE, Reason.JOB_NOT_FOUND, Reason.JOB_TERMINAL):
                    raise LeaseVoidError(str(error)) from error
                if not is_transient(error):
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        raise LeaseVoidError("the scheduler said so")

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any, seconds: float) -> Any:
        try:
            response = await channel.call(method, request, seconds)
        except TidemillError as error:
            if is_transient(error):
                self._answered_at = -math.inf
            raise
        self._answered_at = time.monotonic()
        return response
