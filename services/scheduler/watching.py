"""`WatchJob`: coalesced snapshots of a job until it is terminal."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from services.scheduler.clock import Clock
from services.scheduler.core.records import TERMINAL_STATES
from services.scheduler.signals import Changes
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2

MIN_INTERVAL_SECONDS = 0.1
MOST_WATCHES = 6144
"""Of the 8192 calls that a server takes at a time: workers and everything else need the rest."""


class JobWatch:
    """Serves watchers. `read` gives a job's durable record, or raises."""

    def __init__(self, read: Callable[[str], Awaitable[records_pb2.JobRecord]], changes: Changes, clock: Clock) -> None:
        self._read = read
        self._changes = changes
        self._clock = clock
        self._draining = False
        self._open = 0

    def drain(self) -> None:
        """End all watches; watchers resume at the next scheduler."""
        self._draining = True
        self._changes.fire_all()

    async def watch(self, job: str, after_revision: int) -> AsyncIterator[records_pb2.JobRecord]:
        """Snapshots above `after_revision`, at most ten a second; the last one is terminal."""
        if self._open >= MOST_WATCHES:
            raise TidemillError(
                Reason.OVERLOADED,
                f"{MOST_WATCHES} watches are open, as many as may be beside the calls of workers; watch fewer jobs",
                retry_after=5.0,
            )
        self._open += 1
        try:
            async for record in self._snapshots(job, after_revision):
                yield record
        finally:
            self._open -= 1

    async def _snapshots(self, job: str, after_revision: int) -> AsyncIterator[records_pb2.JobRecord]:
        sent_phase: int | None = None
        with self._changes.waiter(job) as changed:
            while not self._draining:
                changed.clear()
                record = await self._read(job)
                if record.revision > after_revision or sent_phase not in (None, record.phase):
                    yield record
                    after_revision, sent_phase = record.revision, record.phase
                if record.state in TERMINAL_STATES:
                    return
                not_before = self._clock.monotonic() + MIN_INTERVAL_SECONDS
                await changed.wait()
                await asyncio.sleep(max(0.0, not_before - self._clock.monotonic()))
        raise TidemillError(Reason.UNAVAILABLE, "the scheduler is shutting down; watch again", retry_after=1.0)
