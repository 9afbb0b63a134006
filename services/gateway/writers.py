"""Opens appenders. One gateway has at most one for a job; a new one ends the old one at once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.gateway.append_limits import MemoryBudget, StreamLimit
from services.gateway.appender import Appender, SegmentLimits, WriterState
from services.gateway.catalogue import ModelCatalogue
from services.gateway.frames import FrameChecker
from services.gateway.prompt_length import PromptLengths
from services.gateway.scheduler import Scheduler
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.merkle import Frontier
from tidemill.names import JobName
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2

# How long a stream's successor waits for the rows that were accepted before the stream broke.
_FINISH_SECONDS = 5.0


class Writers:
    """The appenders of this process, by job."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: ObjectStore,
        catalogue: ModelCatalogue,
        limits: SegmentLimits,
        *,
        budget: MemoryBudget,
        streams: StreamLimit,
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._catalogue = catalogue
        self._lengths = PromptLengths(store)
        self._limits = limits
        self._budget = budget
        self._streams = streams
        self._open: dict[JobName, Appender] = {}
        self._finishing: dict[JobName, asyncio.Task[None]] = {}

    async def open(
        self, job: JobName, on_durable: Callable[[int], None], on_failure: Callable[[BaseException], None]
    ) -> Appender:
        """Take over the end of a job, until `close`; JOB_NOT_FOUND, JOB_NOT_RECEIVING, or OVERLOADED for a tenant that
        has too many open."""
        self._streams.enter(job.tenant)
        try:
            await self._finish_other(job)
            return await self._begin(job, on_durable, on_failure)
        except BaseException:
            self._streams.leave(job.tenant)
            raise

    async def _finish_other(self, job: JobName) -> None:
        """Let rows become durable that an earlier stream of the job brought; its end may not have been noticed yet."""
        if job in self._finishing:
            await asyncio.wait([self._finishing[job]])
        elif (other := self._open.get(job)) is not None and not other.settled:
            await _flush(other)

    async def _begin(
        self, job: JobName, on_durable: Callable[[int], None], on_failure: Callable[[BaseException], None]
    ) -> Appender:
        opened = await self._scheduler.open_writer(str(job))
        segments = await self._scheduler.list_segments(str(job)) if opened.next_offset else []
        start = WriterState(
            job=job,
            spec=opened.job.spec,
            epoch=opened.writer_epoch,
            frontier=Frontier.restore(opened.next_offset, opened.merkle_frontier),
            segments=segments,
        )
        checker = await self.checker(opened.job.spec)
        appender = Appender(
            start,
            checker=checker,
            store=self._store,
            scheduler=self._scheduler,
            limits=self._limits,
            budget=self._budget,
            on_durable=on_durable,
            on_failure=on_failure,
        )
        self._register(appender)
        return appender

    def _register(self, appender: Appender) -> None:
        """Of two appenders of one job only the later epoch lives on."""
        other = self._open.get(appender.job)
        if other is not None and other.epoch > appender.epoch:
            appender.fail(_superseded(appender.job))
            return
        self._open[appender.job] = appender
        if other is not None:
            other.fail(_superseded(appender.job))

    async def checker(self, spec: records_pb2.JobSpec) -> FrameChecker:
        """The checks that rows of a job have to pass."""
        dedicated = spec.execution_mode == job_pb2.EXECUTION_MODE_DEDICATED
        return FrameChecker(self._lengths, await self._catalogue.latest(spec.model), spec.sampling, dedicated=dedicated)

    def close(self, appender: Appender) -> None:
        """Forget an appender and stop it; once for each that was opened.

        Rows that it accepted before its client was cut off are stored in the background, and not sent again.
        """
        self._streams.leave(appender.job.tenant)
        if self._open.get(appender.job) is not appender:
            appender.close()
            return
        del self._open[appender.job]
        if appender.settled:
            appender.close()
        else:
            task = self._finishing[appender.job] = asyncio.create_task(_finish(appender))
            task.add_done_callback(lambda _: self._finishing.pop(appender.job))


async def _finish(appender: Appender) -> None:
    try:
        await _flush(appender)
    finally:
        appender.close()


async def _flush(appender: Appender) -> None:
    # A failure is the failed call's, and what is not stored is sent again.
    with suppress(TidemillError, TimeoutError):
        async with asyncio.timeout(_FINISH_SECONDS):
            await appender.flush()


def _superseded(job: JobName) -> TidemillError:
    return TidemillError(
        Reason.WRITER_SUPERSEDED, f"another stream appends to {job} now; reconnect to go on", metadata={"job": job}
    )


def ignore_end(_: int) -> None:
    """For callers that wait for their last row only."""


def ignore_failure(_: BaseException) -> None:
    """The next call of the appender raises it."""
