"""`SubmitJob`: create, append and seal in one call, at implicit offsets, resumable by `request_id`."""

from collections.abc import AsyncIterator, Sequence

from services.gateway import metrics
from services.gateway.appender import Appender
from services.gateway.auth import Principal
from services.gateway.background import Background
from services.gateway.convert import is_terminal
from services.gateway.create import refuse_in_submission
from services.gateway.frames import Frame, refuse_shape
from services.gateway.input_segments import StoredRows
from services.gateway.jobs import Jobs
from services.gateway.mismatch import compare
from services.gateway.patience import timely
from services.gateway.refusals import raise_refusal
from services.gateway.scheduler import Scheduler
from services.gateway.seal import Sealer
from services.gateway.unknown_fields import has_unknown_fields, unknown_fields
from services.gateway.writers import Writers, ignore_end, ignore_failure
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.names import parse_job
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, row_pb2

Request = job_service_pb2.SubmitJobRequest


class SubmitJob:
    """Handles submissions."""

    def __init__(
        self,
        jobs: Jobs,
        writers: Writers,
        sealer: Sealer,
        *,
        scheduler: Scheduler,
        store: ObjectStore,
        background: Background,
        idle_seconds: float,
    ) -> None:
        self._jobs = jobs
        self._writers = writers
        self._sealer = sealer
        self._scheduler = scheduler
        self._store = store
        self._background = background
        self._idle_seconds = idle_seconds

    async def handle(self, principal: Principal, requests: AsyncIterator[Request]) -> records_pb2.JobRecord:
        """The sealed job. Without a `request_id` a failed submission is cancelled: nothing is left half-done."""
        requests = timely(requests, self._idle_seconds)
        first = await anext(requests, None)
        if first is None or not first.HasField("create"):
            raise TidemillError(Reason.INVALID_ARGUMENT, "the first message of a submission must carry `create`")
        refuse_in_submission(first.create)
        record = await self._jobs.create(principal, first.create)
        submitted = False
        try:
            with metrics.OPEN_STREAMS.labels("submit").track_inprogress():
                record = await self._fill(record, first, requests)
                submitted = True
        finally:
            if not submitted and not first.create.request_id:
                self._background.run(self._scheduler.cancel_job(record.spec.name))
        return record

    async def _fill(
        self, record: records_pb2.JobRecord, first: Request, requests: AsyncIterator[Request]
    ) -> records_pb2.JobRecord:
        if record.state == job_pb2.JOB_STATE_RECEIVING:
            return await self._append(record, first, requests)
        return await self._compare(record, first, requests)

    async def _append(
        self, record: records_pb2.JobRecord, first: Request, requests: AsyncIterator[Request]
    ) -> records_pb2.JobRecord:
        appender = await self._writers.open(parse_job(record.spec.name), ignore_end, ignore_failure)
        try:
            rows = _Rows(appender.received_end)
            async for frame in rows.frames(first, requests):
                raise_refusal(await appender.append(frame))
            await appender.flush()
            _check_count(rows.count, appender)
            return await self._sealer.seal_rows(record.spec, appender.frontier, appender.stored.segments)
        finally:
            self._writers.close(appender)

    async def _compare(
        self, record: records_pb2.JobRecord, first: Request, requests: AsyncIterator[Request]
    ) -> records_pb2.JobRecord:
        """A repeated submission of a job that was sealed: its rows must be those stored."""
        name = record.spec.name
        if not record.input_data_version:
            raise _not_receiving(record, "create another job for the rows")
        stored = StoredRows(self._store, await self._scheduler.list_segments(name))
        checker = await self._writers.checker(record.spec)
        rows = _Rows(stored.end)
        async for frame in rows.frames(first, requests):
            if frame.end > stored.end:
                raise _not_receiving(record, f"it was sealed with {stored.end} rows and the submission has more")
            raise_refusal(refuse_shape(frame) or await compare(checker, stored, frame))
        return await self._sealer.seal(parse_job(name), rows.count)


class _Rows:
    """The rows of a submission as frames that never straddle the end of what was stored before."""

    def __init__(self, stored_end: int) -> None:
        self.count = 0
        self._stored_end = stored_end

    async def frames(self, first: Request, requests: AsyncIterator[Request]) -> AsyncIterator[Frame]:
        """All rows, in order."""
        for frame in self._split(first):
            yield frame
        async for request in requests:
            if request.HasField("create"):
                raise TidemillError(Reason.INVALID_ARGUMENT, "only the first message of a submission carries `create`")
            for frame in self._split(request):
                yield frame

    def _split(self, request: Request) -> list[Frame]:
        if not request.rows and has_unknown_fields(request):
            raise unknown_fields()
        below = max(0, self._stored_end - self.count)
        pieces: list[Sequence[row_pb2.Row]] = [request.rows[:below], request.rows[below:]]
        frames: list[Frame] = []
        for rows in pieces:
            if rows:
                frames.append(Frame(self.count, rows, request))
                self.count += len(rows)
        return frames


def _check_count(count: int, appender: Appender) -> None:
    if count < appender.durable_end:
        raise TidemillError(
            Reason.ROW_COUNT_MISMATCH,
            f"the submission ended after {count} rows, but {appender.durable_end} were stored under its request_id: "
            "send all rows again, or use a fresh request_id",
            metadata={"job": appender.job, "row_count": count, "next_offset": appender.durable_end},
        )
    if not count:
        raise TidemillError(
            Reason.JOB_EMPTY, "the submission has no rows; send at least one", metadata={"job": appender.job}
        )


def _not_receiving(record: records_pb2.JobRecord, remedy: str) -> TidemillError:
    state = job_pb2.JobState.Name(record.state).removeprefix("JOB_STATE_")
    verb = "ended as" if is_terminal(record.state) else "is"
    return TidemillError(
        Reason.JOB_NOT_RECEIVING,
        f"job {record.spec.name} {verb} {state} and takes no more rows: {remedy}",
        metadata={"job": record.spec.name, "state": state},
    )
