"""Between what the scheduler keeps of a job and what clients see of it."""

import hashlib

import grpc
from google.rpc import status_pb2

from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.status import rpc_status
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2

_TERMINAL = frozenset(
    {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_EXPIRED}
)
_TIMES = (
    "create_time",
    "seal_time",
    "start_time",
    "end_time",
    "estimated_finish_time",
    "complete_by_time",
    "eta_p50_time",
    "eta_p90_time",
)


def is_terminal(state: "job_pb2.JobState.ValueType") -> bool:
    """Whether a job in `state` changes no more."""
    return state in _TERMINAL


def public_job(record: records_pb2.JobRecord, store: ObjectStore) -> job_pb2.Job:
    """The job as clients see it."""
    spec = record.spec
    job = job_pb2.Job(
        name=spec.name,
        model=spec.model,
        execution_mode=record.execution_mode,
        dataset=record.dataset,
        labels=spec.labels,
        origin_run_id=spec.origin_run_id,
        service_class=record.service_class,
        on_deadline=record.on_deadline,
        escalation=record.escalation,
        accept_at_risk=spec.accept_at_risk,
        state=record.state,
        phase=record.phase,
        row_counts=record.row_counts,
        usage=record.usage,
        next_offset=record.next_offset,
        revision=record.revision,
        input_data_version=record.input_data_version.hex(),
        output_data_version=record.output_data_version.hex(),
        model_digest=record.model_digest,
        engine_build=record.engine_build,
        engine_record=record.engine_record.hex(),
        equal_answers=record.equal_answers,
        trace_id=telemetry.trace_id_of(spec.traceparent),
        sla_state=record.sla_state,
        admitted_at_risk=record.admitted_at_risk,
        escalated=record.escalated,
        retry_of=spec.retry_of,
        replay_of=spec.replay_of,
        etag=etag_of(record),
    )
    _set_optional(job, record, store)
    return job


def etag_of(record: records_pb2.JobRecord) -> str:
    """A name for the job as it stands; another revision has another."""
    return hashlib.sha256(f"{record.spec.name}@{record.revision}".encode()).hexdigest()[:16]


def _set_optional(job: job_pb2.Job, record: records_pb2.JobRecord, store: ObjectStore) -> None:
    if record.spec.HasField("sampling"):
        job.sampling.CopyFrom(record.spec.sampling)
    if record.HasField("pause"):
        job.pause.CopyFrom(record.pause)
    for name in _TIMES:
        if record.HasField(name):
            getattr(job, name).CopyFrom(getattr(record, name))
    if record.output_manifest_key:
        job.output_manifest_uri = store.uri(record.output_manifest_key)
    if record.state == job_pb2.JOB_STATE_FAILED:
        job.error.CopyFrom(_job_error(record))


def _job_error(record: records_pb2.JobRecord) -> status_pb2.Status:
    # Workers may give reasons of their own, which have no place in our table.
    known = record.error_reason in Reason.__members__
    status = rpc_status(TidemillError(Reason(record.error_reason) if known else Reason.INTERNAL, record.error_message))
    if not known:
        status.code = int(grpc.StatusCode.FAILED_PRECONDITION.value[0])
        status.message = f"{record.error_reason}: {record.error_message}"
        del status.details[:]
    return status
