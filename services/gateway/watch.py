"""`WatchJob`: snapshots of a job, coalesced, with heartbeats."""

import asyncio
from collections.abc import AsyncIterator

from services.gateway import metrics
from services.gateway.auth import Principal
from services.gateway.changes import Changes
from services.gateway.convert import public_job
from services.gateway.drain import Drain
from services.gateway.scheduler import Scheduler
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_service_pb2

_SHORTEST_GAP_SECONDS = 0.1

Response = job_service_pb2.WatchJobResponse


class WatchJob:
    """Handles watchers."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, drain: Drain, heartbeat_seconds: float) -> None:
        self._scheduler = scheduler
        self._store = store
        self._drain = drain
        self._heartbeat_seconds = heartbeat_seconds

    async def handle(self, principal: Principal, request: job_service_pb2.WatchJobRequest) -> AsyncIterator[Response]:
        """Snapshots above a revision until the terminal one."""
        name = principal.job(request.name)
        if request.after_revision < 0:
            raise TidemillError(
                Reason.INVALID_ARGUMENT,
                f"after_revision is {request.after_revision}; it must be 0 or more",
                violations=[FieldViolation("after_revision", "must be 0 or more")],
            )
        with metrics.OPEN_STREAMS.labels("watch").track_inprogress():
            snapshots = self._scheduler.watch_job(str(name), request.after_revision)
            async for response in self._drain.until(self._responses(snapshots, request.after_revision)):
                yield response

    async def _responses(
        self, snapshots: AsyncIterator[records_pb2.JobRecord], revision: int
    ) -> AsyncIterator[Response]:
        latest = _Latest(snapshots)
        try:
            while not latest.over:
                record = await latest.take(self._heartbeat_seconds)
                if record is None:
                    if not latest.over:
                        yield Response(revision=revision, heartbeat=True)
                    continue
                revision = record.revision
                yield Response(job=public_job(record, self._store), revision=revision)
                await latest.settle(_SHORTEST_GAP_SECONDS)
        finally:
            latest.close()


class _Latest:
    """The newest of a stream of snapshots: a slow reader skips those in between, never the last."""

    def __init__(self, snapshots: AsyncIterator[records_pb2.JobRecord]) -> None:
        self._snapshots = snapshots
        self._record: records_pb2.JobRecord | None = None
        self._changes = Changes()
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(lambda _: self._changes.notify())

    @property
    def over(self) -> bool:
        """Whether everything was taken and no more comes; raises what ended the stream."""
        if self._record is not None or not self._task.done():
            return False
        self._task.result()
        return True

    async def take(self, seconds: float) -> records_pb2.JobRecord | None:
        """The newest snapshot once there is one; None after `seconds` without, or at the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._changes.until(lambda: self._record is not None or self._task.done())
        except TimeoutError:
            return None
        record, self._record = self._record, None
        return record

    async def settle(self, seconds: float) -> None:
        """Let snapshots gather for `seconds`, less when the last one has come."""
        await asyncio.wait({self._task}, timeout=seconds)

    def close(self) -> None:
        """Stop following."""
        self._task.cancel()

    async def _follow(self) -> None:
        async for record in self._snapshots:
            self._record = record
            self._changes.notify()
