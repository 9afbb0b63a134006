"""Events about a job's rows: created, filled, sealed."""

from dataclasses import replace

from services.scheduler.core.apply_sla import promised
from services.scheduler.core.estimates import expected_row_tokens
from services.scheduler.core.records import Job, Outlook, Seal, Segment, Terms
from services.scheduler.core.state import State
from services.scheduler.core.times import from_timestamp
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.v1 import job_pb2


def job_created(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The job receives rows."""
    spec = event.job_created.spec
    job = Job(
        spec=spec,
        name=spec.name,
        tenant=spec.tenant,
        model=spec.model,
        terms=_terms(spec),
        state=job_pb2.JOB_STATE_RECEIVING,
        revision=event.sequence,
        create_ns=state.time_ns,
    )
    state.put(job)
    state.receiving[job.name] = job.create_ns
    if spec.request_id:
        state.requests[spec.tenant, spec.request_id] = spec.name


def _terms(spec: records_pb2.JobSpec) -> Terms:
    return Terms(
        deadline_ns=from_timestamp(spec.complete_by_time),
        service_class=spec.service_class or job_pb2.SERVICE_CLASS_STANDARD,
        on_deadline=spec.on_deadline or job_pb2.DEADLINE_POLICY_RUN_LATE,
        raise_class=spec.escalation.raise_class,
        more_parallelism=spec.escalation.more_parallelism,
    )


def writer_opened(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """A writer owns the end."""
    opened = event.writer_opened
    state.put(replace(state.jobs[opened.job], writer_epoch=opened.writer_epoch, revision=event.sequence))


def segment_committed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Rows became durable."""
    committed = event.segment_committed
    ref = committed.segment
    segment = Segment(ref.key, ref.start, ref.count, ref.sha256, ref.size_bytes, committed.writer_epoch)
    state.segments.setdefault(committed.job, []).append(segment)
    job = state.jobs[committed.job]
    state.put(
        replace(
            job,
            end=segment.end,
            text_bytes=job.text_bytes + ref.text_bytes,
            max_output_tokens=job.max_output_tokens + ref.max_output_tokens,
            shared_only_rows=job.shared_only_rows + ref.shared_only_rows,
            frontier=tuple(committed.merkle_frontier),
            revision=event.sequence,
        ),
    )


def job_sealed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The rows are fixed and wait for workers."""
    sealed = event.job_sealed
    seal = Seal(
        row_count=sealed.row_count,
        input_data_version=sealed.input_data_version,
        input_manifest_key=sealed.input_manifest_key,
        dataset=sealed.dataset,
        sequence=event.sequence,
        time_ns=state.time_ns,
    )
    job = replace(state.jobs[sealed.job], state=job_pb2.JOB_STATE_QUEUED, seal=seal, revision=event.sequence)
    row_tokens, row_tokens_p90 = expected_row_tokens(state.pace(job.model), job)
    job = replace(
        job,
        row_tokens=row_tokens,
        row_tokens_p90=row_tokens_p90,
        admitted_at_risk=sealed.admitted_at_risk,
        pinned_digest=sealed.model_digest,
        mode=sealed.execution_mode or job.spec.execution_mode,
        outlook=_first_outlook(sealed),
    )
    state.put(promised(job, state.time_ns))
    del state.receiving[job.name]


def _first_outlook(sealed: ledger_pb2.JobSealed) -> Outlook:
    state = job_pb2.SLA_STATE_AT_RISK if sealed.admitted_at_risk else job_pb2.SLA_STATE_ON_TRACK
    if not sealed.HasField("eta_p50_time"):
        return Outlook(state)
    return Outlook(state, from_timestamp(sealed.eta_p50_time), from_timestamp(sealed.eta_p90_time))
