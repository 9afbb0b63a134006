"""`RetryFailedRows`: a new job with the rows of a terminal one that ended with an error."""

import hashlib
import time

from services.gateway.auth import Principal
from services.gateway.background import Background
from services.gateway.catalogue import ModelCatalogue
from services.gateway.convert import is_terminal
from services.gateway.failed_rows import FailedRows
from services.gateway.frames import Frame
from services.gateway.job_fields import check_request_id, check_window, deadline_of, raise_violations
from services.gateway.scheduler import Scheduler
from services.gateway.seal import Sealer
from services.gateway.submit import ignore_end, ignore_failure, raise_refusal
from services.gateway.writers import Writers
from tidemill import names, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2

Request = job_service_pb2.RetryFailedRowsRequest


class RetryFailedRows:
    """Handles retries. A call with a `request_id` that broke off goes on where its rows ended."""

    def __init__(
        self,
        writers: Writers,
        sealer: Sealer,
        catalogue: ModelCatalogue,
        *,
        scheduler: Scheduler,
        store: ObjectStore,
        background: Background,
    ) -> None:
        self._writers = writers
        self._sealer = sealer
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._store = store
        self._background = background

    async def handle(self, principal: Principal, request: Request) -> records_pb2.JobRecord:
        """The sealed job; JOB_NOT_TERMINAL or NO_FAILED_ROWS.

        Without a `request_id` nothing is left half-done; with one, the metadata of an error name the job that waits to
        be gone on with, as `unsealed_job`.
        """
        source = await self._scheduler.get_job(str(principal.job(request.name)))
        _check(request, source)
        await self._catalogue.require(source.spec.model)
        record = await self._scheduler.create_job(_spec(request, source))
        if record.state != job_pb2.JOB_STATE_RECEIVING:
            return record
        filled = False
        try:
            record = await self._fill(record, source.spec.name)
            filled = True
        except TidemillError as exc:
            exc.metadata["unsealed_job"] = record.spec.name
            raise
        finally:
            if not filled and not request.request_id:
                self._background.run(self._scheduler.cancel_job(record.spec.name))
        return record

    async def _fill(self, record: records_pb2.JobRecord, source: str) -> records_pb2.JobRecord:
        appender = await self._writers.open(names.parse_job(record.spec.name), ignore_end, ignore_failure)
        try:
            offset = appender.received_end
            async for rows in FailedRows(self._scheduler, self._store, source).frames(offset):
                message = job_service_pb2.AppendRowsRequest(offset=offset, rows=rows)
                raise_refusal(await appender.append(Frame(offset, message.rows, message)))
                offset += len(rows)
            await appender.flush()
            return await self._sealer.seal_rows(record.spec, appender.frontier, appender.stored.segments)
        finally:
            self._writers.close(appender)


def _check(request: Request, source: records_pb2.JobRecord) -> None:
    window = [*check_window(request.completion_window)] if request.HasField("completion_window") else []
    raise_violations(list(check_request_id(request.request_id)), window)
    state = job_pb2.JobState.Name(source.state).removeprefix("JOB_STATE_")
    metadata = {"job": source.spec.name, "state": state}
    if not is_terminal(source.state):
        raise TidemillError(
            Reason.JOB_NOT_TERMINAL,
            f"job {source.spec.name} is {state}; its failed rows can be asked again once it ended: wait, or cancel it",
            metadata=metadata,
        )
    counts = source.row_counts
    if not counts.failed:
        given_up = counts.cancelled + counts.expired
        rest = f"; {given_up} were given up unasked: submit those as a new job" if given_up else ""
        raise TidemillError(
            Reason.NO_FAILED_ROWS,
            f"none of the {counts.total} rows of {source.spec.name} failed{rest}",
            metadata=metadata,
        )


def _spec(request: Request, source: records_pb2.JobRecord) -> records_pb2.JobSpec:
    """What the old job's client fixed, under a new name; class and policies are those in force at its end."""
    spec, old = records_pb2.JobSpec(), source.spec
    spec.CopyFrom(old)
    spec.name = str(names.JobName(old.tenant, names.new_job_id()))
    spec.request_id = request.request_id
    spec.request_digest = hashlib.sha256(b"retry\0" + request.SerializeToString(deterministic=True)).digest()
    spec.traceparent = telemetry.current_traceparent()
    spec.retry_of = old.name
    spec.service_class = source.service_class
    spec.on_deadline = source.on_deadline
    spec.escalation.CopyFrom(source.escalation)
    window = request.completion_window if request.HasField("completion_window") else None
    spec.complete_by_time.CopyFrom(deadline_of(job_pb2.Job(completion_window=window), time.time_ns()))
    return spec
