"""Commands on whole jobs: create, seal, cancel, expire."""

from collections.abc import Callable

from services.scheduler.core.admission import Admission
from services.scheduler.core.checks import (
    find_job,
    not_receiving,
    require,
    require_key,
    require_sha256,
    require_text,
)
from services.scheduler.core.deadlines import check_window
from services.scheduler.core.endings import already_ended, end_job, stop_job
from services.scheduler.core.records import Job, Seal
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, from_timestamp
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2, scheduler_service_pb2
from tidemill.names import parse_job
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

RECEIVING_NS = 24 * 3600 * SECOND
"""An unsealed job expires after a day (I10)."""


def create_job(state: State, spec: records_pb2.JobSpec, now_ns: int) -> Events:
    """Create the job; no event when the same call was made before.

    Raises:
        TidemillError: INVALID_ARGUMENT, INVALID_NAME, DEADLINE_OUT_OF_RANGE, or REQUEST_ID_REUSED when the request id
            or the name stands for another job.
    """
    check_spec(spec)
    known = existing_job(state, spec)
    if known is None and spec.name not in state.cleanups:
        check_window(from_timestamp(spec.complete_by_time), now_ns, "complete_by_time")
        return [ledger_pb2.LedgerEvent(job_created=ledger_pb2.JobCreated(spec=spec))]
    if known is not None and not known.deleted and _same_request(known.spec, spec):
        return []
    raise TidemillError(
        Reason.REQUEST_ID_REUSED,
        f"request id {spec.request_id!r} or name {spec.name} already stands for another job; "
        "repeat a call with the same job, or choose a fresh request id",
        metadata={"job": known.name if known else spec.name, "request_id": spec.request_id},
    )


def _same_request(known: records_pb2.JobSpec, spec: records_pb2.JobSpec) -> bool:
    if not spec.request_id:
        return known == spec
    return (known.request_id, known.request_digest) == (spec.request_id, spec.request_digest)


def existing_job(state: State, spec: records_pb2.JobSpec) -> Job | None:
    """The job that an earlier call with this request id, or this name, created."""
    name = state.requests.get((spec.tenant, spec.request_id), spec.name) if spec.request_id else spec.name
    return state.jobs.get(name)


def check_spec(spec: records_pb2.JobSpec) -> None:
    """Refuse what no gateway should send."""
    name = parse_job(spec.name)
    require(name.tenant == spec.tenant, "spec.tenant", f"must be the tenant of the name, {name.tenant}")
    require_text(spec.model, "spec.model")
    require(spec.HasField("complete_by_time"), "spec.complete_by_time", "must be set")
    known_mode = spec.execution_mode in job_pb2.ExecutionMode.values()
    require(known_mode, "spec.execution_mode", "must be SHARED, DEDICATED or absent")
    if spec.request_id:
        require_text(spec.request_id, "spec.request_id")
        require_sha256(spec.request_digest, "spec.request_digest")


def admit_unseen(job: Job) -> Admission:
    """Take a job without looking at the capacity: for replays of the past and tests of other things."""
    return Admission(mode=job.spec.execution_mode or job_pb2.EXECUTION_MODE_SHARED)


def seal_job(
    state: State, request: scheduler_service_pb2.SealJobRequest, admit: Callable[[Job], Admission] = admit_unseen
) -> Events:
    """Fix the rows and queue the job; no event when it was sealed with this count before.

    Raises:
        TidemillError: JOB_NOT_FOUND, JOB_ALREADY_SEALED (with another count), JOB_NOT_RECEIVING, JOB_EMPTY,
            ROW_COUNT_MISMATCH, INVALID_ARGUMENT, or what `admit` raises: the job goes on receiving then.
    """
    job = find_job(state, request.job)
    if job.seal is not None:
        return _sealed_before(job.name, job.seal, request.row_count)
    if not job.receiving:
        raise not_receiving(job)
    _check_count(job, request.row_count)
    require_sha256(request.input_data_version, "input_data_version")
    require_key(request.input_manifest_key, job.name, "input", "input_manifest_key")
    require_text(request.dataset, "dataset")
    sealed = ledger_pb2.JobSealed(
        job=job.name,
        row_count=request.row_count,
        input_data_version=request.input_data_version,
        input_manifest_key=request.input_manifest_key,
        dataset=request.dataset,
    )
    admit(job).describe(sealed)
    return [ledger_pb2.LedgerEvent(job_sealed=sealed)]


def _sealed_before(job: str, seal: Seal, row_count: int) -> Events:
    if seal.row_count == row_count:
        return []
    raise TidemillError(
        Reason.JOB_ALREADY_SEALED,
        f"job {job} was sealed with {seal.row_count} rows, not {row_count}",
        metadata={"job": job, "row_count": row_count, "sealed_row_count": seal.row_count},
    )


def _check_count(job: Job, row_count: int) -> None:
    figures = {"job": job.name, "row_count": row_count, "next_offset": job.end}
    if row_count != job.end:
        raise TidemillError(
            Reason.ROW_COUNT_MISMATCH,
            f"row_count {row_count} does not equal the {job.end} rows stored; append the rest or correct the count",
            metadata=figures,
        )
    if not row_count:
        raise TidemillError(
            Reason.JOB_EMPTY, f"job {job.name} has no rows; append at least one before the seal", metadata=figures
        )


def cancel_job(state: State, name: str) -> Events:
    """Stop the job: rows at workers may still be committed for a moment. No event when that was asked before.

    Raises:
        TidemillError: JOB_NOT_FOUND, or JOB_TERMINAL when the job has ended otherwise or is about to.
    """
    job = find_job(state, name)
    if job.open:
        return stop_job(state, job, job_pb2.JOB_STATE_CANCELLED)
    if job.heading_for == job_pb2.JOB_STATE_CANCELLED:
        return []
    raise already_ended(job, "cancel")


def next_expiry_ns(state: State) -> int | None:
    """When the oldest unsealed job expires; None without one."""
    oldest = next(iter(state.receiving.values()), None)
    return None if oldest is None else oldest + RECEIVING_NS


def expire_oldest(state: State, now_ns: int) -> Events:
    """Expire the oldest unsealed job if its day is over; call again until there is no event."""
    expiry = next_expiry_ns(state)
    if expiry is None or expiry > now_ns:
        return []
    return end_job(state.jobs[next(iter(state.receiving))], job_pb2.JOB_STATE_EXPIRED)
