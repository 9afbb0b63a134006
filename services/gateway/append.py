"""`AppendRows`: frames in, acknowledgements and refusals out."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from services.gateway import metrics
from services.gateway.appender import Accepted, Appender, Duplicate, Refusal
from services.gateway.auth import Principal
from services.gateway.drain import Drain, going_away
from services.gateway.frames import frame_of, refuse_unknown
from services.gateway.outbox import Outbox
from services.gateway.patience import read_in_time, timely
from services.gateway.refusals import raise_refusal
from services.gateway.scheduler import Scheduler
from services.gateway.unknown_fields import has_unknown_fields, unknown_fields
from services.gateway.writers import Writers, ignore_end, ignore_failure
from tidemill.errors import Reason, TidemillError
from tidemill.names import JobName
from tidemill.status import STATUS_OF
from tidemill.v1 import job_service_pb2

Request = job_service_pb2.AppendRowsRequest
Response = job_service_pb2.AppendRowsResponse


class AppendRows:
    """Handles append streams."""

    def __init__(self, writers: Writers, drain: Drain, idle_seconds: float) -> None:
        self._writers = writers
        self._drain = drain
        self._idle_seconds = idle_seconds

    async def handle(self, principal: Principal, requests: AsyncIterator[Request]) -> AsyncIterator[Response]:
        """Answers to the frames of one stream; ends when the client is done and everything is durable."""
        requests = timely(requests, self._idle_seconds)
        first = await anext(requests, None)
        if first is None or not first.job:
            raise TidemillError(Reason.INVALID_ARGUMENT, "the first message of an append stream must name the job")
        outbox = Outbox()
        appender = await self._writers.open(principal.job(first.job), outbox.moved, outbox.close)
        outbox.start(appender.durable_end)
        stream = _Stream(appender, outbox)
        tasks = [
            asyncio.create_task(stream.receive(first, requests)),
            asyncio.create_task(stream.end_on(self._drain)),
        ]
        for task in tasks:
            task.add_done_callback(stream.task_ended)
        try:
            with metrics.OPEN_STREAMS.labels("append").track_inprogress():
                async for response in read_in_time(outbox.responses(), self._idle_seconds):
                    yield response
        finally:
            for task in tasks:
                task.cancel()
            self._writers.close(appender)


class AppendRowsOnce:
    """Appends one frame."""

    def __init__(self, writers: Writers, scheduler: Scheduler) -> None:
        self._writers = writers
        self._scheduler = scheduler

    async def handle(
        self, principal: Principal, request: job_service_pb2.AppendRowsOnceRequest
    ) -> job_service_pb2.AppendAck:
        """The acknowledgement, once the rows are durable; raises what the frame is refused for."""
        job = principal.job(request.job)
        if not request.rows:
            if has_unknown_fields(request):
                raise unknown_fields()
            record = await self._scheduler.get_job(str(job))
            return job_service_pb2.AppendAck(next_offset=record.next_offset)
        appender = await self._writers.open(job, ignore_end, ignore_failure)
        try:
            outcome = await appender.append(frame_of(request))
            raise_refusal(outcome, expected_offset=appender.received_end)
            end = await appender.flush()
        finally:
            self._writers.close(appender)
        return job_service_pb2.AppendAck(next_offset=end, duplicate=isinstance(outcome, Duplicate))


class _Stream:
    """One append stream: its writer and its answers."""

    def __init__(self, appender: Appender, outbox: Outbox) -> None:
        self._appender = appender
        self._outbox = outbox

    async def receive(self, first: Request, requests: AsyncIterator[Request]) -> None:
        """Take all frames in, then make them durable and end the stream."""
        await self._take(first)
        async for request in requests:
            _check_job(request, self._appender.job)
            await self._take(request)
        await self._appender.flush()
        self._outbox.close()

    async def end_on(self, drain: Drain) -> None:
        """When the process stops: make durable what was accepted, and tell the client to go on elsewhere."""
        await drain.wait()
        await self._appender.flush()
        self._outbox.close(going_away())

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """Pass on what went wrong in one of the stream's tasks."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._outbox.close(error)

    async def _take(self, request: Request) -> None:
        if not request.rows:
            await self._answer_empty(request)
            return
        match await self._appender.append(frame_of(request)):
            case Accepted():
                pass
            case Duplicate():
                await self._outbox.put(Response(ack=job_service_pb2.AppendAck(duplicate=True)))
            case Refusal() as refusal:
                await self._refuse(request.offset, refusal)

    async def _answer_empty(self, request: Request) -> None:
        if has_unknown_fields(request):
            await self._refuse(request.offset, refuse_unknown())
            return
        await self._appender.flush()
        await self._outbox.put(Response(ack=job_service_pb2.AppendAck()))

    async def _refuse(self, offset: int, refusal: Refusal) -> None:
        metrics.FRAMES_REFUSED.labels(refusal.reason).inc()
        code = cast("tuple[int, str]", STATUS_OF[refusal.reason].value)[0]
        error = job_service_pb2.FrameError(
            offset=offset,
            code=code,
            reason=refusal.reason,
            message=refusal.message,
            expected_offset=self._appender.received_end,
            row_errors=refusal.row_errors,
        )
        await self._outbox.put(Response(error=error))


def _check_job(request: Request, job: JobName) -> None:
    if request.job and request.job != str(job):
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"this stream appends to {job}; open another one for {request.job[:128]}",
            metadata={"job": job},
        )
