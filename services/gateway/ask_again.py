"""`RetryFailedRows` and `ReplayRows`: new jobs with rows of a terminal one."""

import hashlib
import time

from services.gateway.auth import Principal
from services.gateway.convert import is_terminal
from services.gateway.job_copier import JobCopier
from services.gateway.job_fields import check_request_id, check_window, deadline_of, raise_violations
from services.gateway.limits import MAX_REPLAY_ROWS
from services.gateway.scheduler import Scheduler
from services.gateway.stored_requests import ChosenRows, FailedRows
from tidemill import names, telemetry
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, job_service_pb2, provenance_pb2

RetryRequest = job_service_pb2.RetryFailedRowsRequest
ReplayRequest = provenance_pb2.ReplayRowsRequest

_DATASET_BYTES = 100


class AskAgain:
    """Handles `RetryFailedRows` and `ReplayRows`."""

    def __init__(self, copier: JobCopier, scheduler: Scheduler, store: ObjectStore) -> None:
        self._copier = copier
        self._scheduler = scheduler
        self._store = store

    async def retry(self, principal: Principal, request: RetryRequest) -> records_pb2.JobRecord:
        """The sealed job of the failed rows; JOB_NOT_TERMINAL or NO_FAILED_ROWS."""
        source = await self._source(principal, request)
        _check_failed(source)
        spec = _spec(request, source, b"retry")
        spec.retry_of = source.spec.name
        spec.service_class = source.service_class
        spec.on_deadline = source.on_deadline
        spec.escalation.CopyFrom(source.escalation)
        return await self._copier.make(spec, FailedRows(self._scheduler, self._store, source.spec.name))

    async def replay(self, principal: Principal, request: ReplayRequest) -> records_pb2.JobRecord:
        """The sealed job of the chosen rows; JOB_NOT_TERMINAL or OFFSET_OUT_OF_RANGE."""
        source = await self._source(principal, request)
        _check_rows(request, source)
        spec = _spec(request, source, b"replay")
        spec.replay_of = source.spec.name
        # Not a version of the dataset: nobody should take it for news.
        spec.dataset = f"{source.dataset[:_DATASET_BYTES]}--replay"
        spec.execution_mode = job_pb2.EXECUTION_MODE_SHARED
        spec.ClearField("origin_run_id")
        rows = ChosenRows(self._scheduler, self._store, source.spec.name, request.row_indices)
        return await self._copier.make(spec, rows)

    async def _source(self, principal: Principal, request: RetryRequest | ReplayRequest) -> records_pb2.JobRecord:
        source = await self._scheduler.get_job(str(principal.job(request.name)))
        window = [*check_window(request.completion_window)] if request.HasField("completion_window") else []
        raise_violations(list(check_request_id(request.request_id)), window)
        _check_ended(source)
        return source


def _check_ended(source: records_pb2.JobRecord) -> None:
    if is_terminal(source.state):
        return
    state = job_pb2.JobState.Name(source.state).removeprefix("JOB_STATE_")
    raise TidemillError(
        Reason.JOB_NOT_TERMINAL,
        f"job {source.spec.name} is {state}; its rows can be asked again once it ended: wait, or cancel it",
        metadata={"job": source.spec.name, "state": state},
    )


def _check_failed(source: records_pb2.JobRecord) -> None:
    counts = source.row_counts
    if counts.failed:
        return
    given_up = counts.cancelled + counts.expired
    rest = f"; {given_up} were given up unasked: submit those as a new job" if given_up else ""
    raise TidemillError(
        Reason.NO_FAILED_ROWS,
        f"none of the {counts.total} rows of {source.spec.name} failed{rest}",
        metadata={"job": source.spec.name, "state": job_pb2.JobState.Name(source.state).removeprefix("JOB_STATE_")},
    )


def _check_rows(request: ReplayRequest, source: records_pb2.JobRecord) -> None:
    count, rows = source.next_offset, request.row_indices
    if not 1 <= len(rows) <= MAX_REPLAY_ROWS:
        raise_violations([FieldViolation("row_indices", f"has {len(rows)} rows; name 1 to {MAX_REPLAY_ROWS}")])
    for row in (min(rows), max(rows)):
        if not 0 <= row < count:
            description = f"row {row} does not exist: the job has {count} rows, the first is row 0"
            raise TidemillError(
                Reason.OFFSET_OUT_OF_RANGE,
                description,
                metadata={"job": source.spec.name, "row_index": row, "end": count},
                violations=[FieldViolation("row_indices", description)],
            )


def _spec(request: RetryRequest | ReplayRequest, source: records_pb2.JobRecord, kind: bytes) -> records_pb2.JobSpec:
    """What the old job's client fixed, under a new name."""
    spec, old = records_pb2.JobSpec(), source.spec
    spec.CopyFrom(old)
    spec.ClearField("retry_of")
    spec.ClearField("replay_of")
    spec.name = str(names.JobName(old.tenant, names.new_job_id()))
    spec.request_id = request.request_id
    spec.request_digest = hashlib.sha256(kind + b"\0" + request.SerializeToString(deterministic=True)).digest()
    spec.traceparent = telemetry.current_traceparent()
    window = request.completion_window if request.HasField("completion_window") else None
    spec.complete_by_time.CopyFrom(deadline_of(job_pb2.Job(completion_window=window), time.time_ns()))
    return spec
