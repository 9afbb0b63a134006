"""What gateways and workers are shown of the state."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from heapq import merge
from itertools import islice

from services.scheduler.core.cleanup import cleanup_kind
from services.scheduler.core.codec import segment_message
from services.scheduler.core.modes import mode_of
from services.scheduler.core.records import Job, JobState, Lease, LeaseKind, Part, Segment
from services.scheduler.core.state import State
from services.scheduler.core.times import to_timestamp
from tidemill import rowset
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.names import parse_job
from tidemill.v1 import job_pb2

_WIRE_KIND = {
    LeaseKind.CHUNK: scheduler_service_pb2.LEASE_KIND_CHUNK,
    LeaseKind.FINALISE: scheduler_service_pb2.LEASE_KIND_FINALISE,
    LeaseKind.CLEANUP: scheduler_service_pb2.LEASE_KIND_CLEANUP,
}


def job_record(job: Job, *, loading: bool = False) -> records_pb2.JobRecord:
    """The job as gateways see it; `loading` says that a worker is loading its model and none has it loaded."""
    failed = job.state == job_pb2.JOB_STATE_FAILED and job.ending is not None
    record = records_pb2.JobRecord(
        spec=job.spec,
        state=job.state,
        phase=_phase(job, loading),
        row_counts=row_counts(job),
        usage=job_pb2.TokenUsage(
            prompt_tokens=job.tally.prompt_tokens,
            output_tokens=job.tally.output_tokens,
            cached_tokens=job.tally.cached_tokens,
        ),
        next_offset=job.end,
        revision=job.revision,
        error_reason=job.ending.reason if failed and job.ending else "",
        error_message=job.ending.message if failed and job.ending else "",
        input_data_version=job.seal.input_data_version if job.seal else b"",
        output_data_version=job.output_data_version,
        output_manifest_key=job.output_manifest_key,
        model_digest=job.model_digest,
        engine_build=job.engine_build,
        engine_record=job.engine_record,
        equal_answers=job.equal_answers,
        dataset=job.seal.dataset if job.seal else job.spec.dataset,
        result_count=job.results,
        execution_mode=mode_of(job),
    )
    _set_times(record, job)
    _set_terms(record, job)
    if job.pause is not None:
        record.pause.CopyFrom(job_pb2.JobPause(reason=job.pause.reason, message=job.pause.message))
    return record


def row_counts(job: Job) -> job_pb2.RowCounts:
    """Rows by outcome (I5: they sum up to `total`)."""
    return job_pb2.RowCounts(
        total=job.end,
        succeeded=job.tally.succeeded,
        failed=job.tally.failed,
        cancelled=job.tally.cancelled,
        expired=job.tally.expired,
        pending=job.missing - job.leased_rows,
        leased=job.leased_rows,
    )


def _phase(job: Job, loading: bool) -> "job_pb2.JobPhase.ValueType":
    if job.terminal or job.receiving:
        return job_pb2.JOB_PHASE_UNSPECIFIED
    if job.ending is not None:
        return job_pb2.JOB_PHASE_FINALISING
    if loading:
        return job_pb2.JOB_PHASE_LOADING_MODEL
    return job_pb2.JOB_PHASE_RUNNING if job.leased_rows else job_pb2.JOB_PHASE_WAITING


def _set_times(record: records_pb2.JobRecord, job: Job) -> None:
    record.create_time.CopyFrom(to_timestamp(job.create_ns))
    if job.seal:
        record.seal_time.CopyFrom(to_timestamp(job.seal.time_ns))
    if job.start_ns:
        record.start_time.CopyFrom(to_timestamp(job.start_ns))
    if job.end_ns:
        record.end_time.CopyFrom(to_timestamp(job.end_ns))
    finish = finish_ns(job)
    if finish is not None:
        record.estimated_finish_time.CopyFrom(to_timestamp(finish))


def _set_terms(record: records_pb2.JobRecord, job: Job) -> None:
    terms = job.terms
    record.complete_by_time.CopyFrom(to_timestamp(terms.deadline_ns))
    record.service_class = terms.service_class
    record.on_deadline = terms.on_deadline
    record.escalation.raise_class = terms.raise_class
    record.escalation.more_parallelism = terms.more_parallelism
    record.admitted_at_risk = job.admitted_at_risk
    record.escalated = bool(job.raised_class) or job.parallelism > 1
    record.sla_state = job.outlook.state
    if job.outlook.eta_p50_ns:
        record.eta_p50_time.CopyFrom(to_timestamp(job.outlook.eta_p50_ns))
    if job.outlook.eta_p90_ns:
        record.eta_p90_time.CopyFrom(to_timestamp(job.outlook.eta_p90_ns))


def finish_ns(job: Job) -> int | None:
    """Expected end at the rate at which rows got results; None without one or when no row is left.

    The rate counts from the first part on, so that it leaves the loading of a model out; with one part only, from the
    first lease.
    """
    pace = job.pace
    if pace is None or not job.open or job.seal is None:
        return None
    elapsed, rows = pace.last_ns - pace.first_ns, pace.rows - pace.first_rows
    if not elapsed or not rows:
        elapsed, rows = pace.last_ns - job.start_ns, pace.rows
    return pace.last_ns + job.missing * elapsed // rows


def list_jobs(state: State, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[Job]:
    """At most `limit` jobs of a tenant, newest first, below `before` (empty: from the newest), in these states."""
    wanted = set(states) or set(job_pb2.JobState.values())
    runs = [names for wanted_state in wanted if (names := state.names.get((tenant, wanted_state)))]
    newest_first = merge(*(_descending(names, before) for names in runs), reverse=True)
    return [state.jobs[name] for name in islice(newest_first, limit)]


def _descending(names: list[str], before: str) -> "map[str]":
    end = bisect_left(names, before) if before else len(names)
    return map(names.__getitem__, range(end - 1, -1, -1))


def list_segments(state: State, job: str, after_row: int, limit: int) -> list[Segment]:
    """At most `limit` segments that end above `after_row`, by start."""
    segments = state.segments.get(job, [])
    first = bisect_right(segments, after_row, key=lambda segment: segment.end)
    return segments[first : first + limit]


def covering_segments(state: State, job: str, start: int, rows: int) -> list[Segment]:
    """The segments that hold any of these rows, by start."""
    segments = state.segments.get(job, [])
    first = bisect_right(segments, start, key=lambda segment: segment.end)
    last = bisect_left(segments, start + rows, key=lambda segment: segment.start)
    return segments[first:last]


def list_parts(state: State, job: str, after_part: int, limit: int) -> list[Part]:
    """At most `limit` parts behind the first `after_part`, in commit order."""
    return state.parts.get(job, [])[after_part : after_part + limit]


def lease_message(state: State, lease: Lease, ttl_seconds: float) -> scheduler_service_pb2.Lease:
    """A live lease as its worker gets it."""
    job = state.jobs.get(lease.job)
    message = scheduler_service_pb2.Lease(
        kind=_WIRE_KIND[lease.kind],
        # Of a job in the archive its name is known, which is all that a cleanup task needs.
        spec=_leased_spec(job) if job else records_pb2.JobSpec(name=lease.job, tenant=parse_job(lease.job).tenant),
        fence=lease.fence,
        attempt=lease.attempt,
    )
    message.ttl.FromNanoseconds(int(ttl_seconds * 1e9))
    if lease.kind is LeaseKind.CHUNK:
        _describe_chunk(state, message, lease)
    elif lease.kind is LeaseKind.CLEANUP:
        message.cleanup = cleanup_kind(purge=lease.purge)
    else:
        _describe_closing(state, message, state.jobs[lease.job])
    return message


def _leased_spec(job: Job) -> records_pb2.JobSpec:
    mode = mode_of(job)
    if mode == job.spec.execution_mode:
        return job.spec
    spec = records_pb2.JobSpec()
    spec.CopyFrom(job.spec)
    spec.execution_mode = mode
    return spec


def _describe_chunk(state: State, message: scheduler_service_pb2.Lease, lease: Lease) -> None:
    chunk = state.chunks[lease.job][lease.chunk_start]
    message.chunk_start = chunk.start
    message.chunk_rows = chunk.rows
    message.model_digest = state.jobs[lease.job].pinned_digest
    message.done_bitmap = rowset.to_bytes(chunk.done, chunk.rows)
    message.alone = lease.alone
    if chunk.condemned:
        message.condemned_bitmap = rowset.to_bytes(chunk.condemned, chunk.rows)
    segments = covering_segments(state, lease.job, chunk.start, chunk.rows)
    message.segments.extend(segment_message(segment) for segment in segments)


def _describe_closing(state: State, message: scheduler_service_pb2.Lease, job: Job) -> None:
    ending = job.expect_ending()
    message.outcome = ending.outcome
    message.error_reason = ending.reason
    message.error_message = ending.message
    message.row_count = job.end
    message.dataset = job.spec.dataset
    for _, chunk in sorted(state.chunks.get(job.name, {}).items()):
        # Most remainders have no result at all; the empty set needs no bytes, which keeps a long job's lease small.
        done = rowset.to_bytes(chunk.done, chunk.rows) if chunk.done else b""
        message.remainders.add(chunk_start=chunk.start, chunk_rows=chunk.rows, done_bitmap=done)
    if job.seal:
        message.input_data_version = job.seal.input_data_version
        message.input_manifest_key = job.seal.input_manifest_key
        message.dataset = job.seal.dataset


def chunk_done(state: State, job: str, chunk_start: int) -> bool:
    """Whether every row of a chunk that was once cut has a result."""
    return chunk_start not in state.chunks.get(job, {})


def is_void(state: State, job: str, fence: int, worker_id: str) -> bool:
    """Whether a lease is not live at this worker."""
    lease = state.leases.get(fence)
    return lease is None or lease.job != job or lease.worker_id != worker_id


def is_stopping(state: State, job: str, fence: int) -> bool:
    """Whether the worker is to give a live lease back: the job is being stopped, or paused."""
    if fence not in state.leases or job not in state.jobs:
        return False
    return state.jobs[job].stopping is not None or state.jobs[job].pause is not None
