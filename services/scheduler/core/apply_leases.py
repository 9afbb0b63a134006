"""Events about chunks: leased, answered in parts, requeued."""

from dataclasses import replace

from services.scheduler.core.codec import part_of
from services.scheduler.core.estimates import expected_row_tokens
from services.scheduler.core.fairness import PRICE_UNIT
from services.scheduler.core.paces import learn
from services.scheduler.core.records import UNCOUNTED, Chunk, EqualAnswers, Job, Lease, LeaseKind, Pace, Part
from services.scheduler.core.state import State
from services.scheduler.core.successors import changed
from services.scheduler.core.times import from_timestamp
from tidemill import rowset
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

REFRESHED_STARTS = 2
"""Jobs whose latest start is brought up to date with each part: soon all of them, and never many at once."""


def chunk_leased(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """A worker has the chunk; the first lease starts the job."""
    leased = event.chunk_leased
    job = state.jobs[leased.job]
    chunk = _take(state, job, leased)
    fence = state.fence_of(event)
    state.chunks.setdefault(job.name, {})[chunk.start] = replace(chunk, fence=fence)
    state.add_lease(
        Lease(
            fence=fence,
            kind=LeaseKind.CHUNK,
            job=job.name,
            worker_id=leased.worker_id,
            attempt=leased.attempt,
            chunk_start=chunk.start,
            charged=leased.charged_tokens,
            price=leased.price or PRICE_UNIT,
            alone=leased.alone,
        )
    )
    state.in_flight.shift(job, 1)
    state.put(
        changed(
            job,
            state=job_pb2.JOB_STATE_RUNNING,
            start_ns=job.start_ns or state.time_ns,
            first_fence=job.first_fence or fence,
            next_cut=max(job.next_cut, chunk.start + chunk.rows),
            leased_rows=job.leased_rows + chunk.missing,
            revision=event.sequence,
        )
    )


def _take(state: State, job: Job, leased: ledger_pb2.ChunkLeased) -> Chunk:
    known = state.chunks.get(job.name, {}).get(leased.chunk_start)
    if known is None:
        return Chunk(leased.chunk_start, leased.chunk_rows)
    state.forget_waiting(job.name, known)
    return known


def part_committed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Rows have a result; the last ones of a chunk end its lease."""
    committed = event.part_committed
    job = state.jobs[committed.job]
    part = part_of(committed.part)
    state.parts.setdefault(job.name, []).append(part)
    state.part_of[part.fence, part.part_number] = (job.name, part)
    lease = state.leases[part.fence]
    _settle(state, job, part, lease)
    _mark_done(state, job, part, lease)
    pace = state.paces[job.model] = learn(state.pace(job.model), job, part, committed.busy_seconds)
    state.spending.add(job.tenant, part.tally.prompt_tokens + part.tally.output_tokens, state.time_ns)
    job = changed(job, tally=job.tally + part.tally)
    row_tokens, row_tokens_p90 = expected_row_tokens(pace, job)
    state.put(
        changed(
            job,
            row_tokens=row_tokens,
            row_tokens_p90=row_tokens_p90,
            pace=_pace(job.pace, state.time_ns, part.row_count),
            leased_rows=job.leased_rows - (part.row_count if lease.kind is LeaseKind.CHUNK else 0),
            model_digest=job.model_digest or committed.model_digest,
            engine_build=job.engine_build or committed.engine_build,
            engine_record=job.engine_record or part.engine_record,
            equal_answers=_least(job.equal_answers, part.equal_answers),
            revision=event.sequence,
        )
    )
    state.refresh_starts(job.model, REFRESHED_STARTS)


def _least(known: EqualAnswers, fresh: EqualAnswers) -> EqualAnswers:
    """What engines promise together: no more than the one that promises least."""
    if job_pb2.EQUAL_ANSWERS_NOT_PROMISED in (known, fresh):
        return job_pb2.EQUAL_ANSWERS_NOT_PROMISED
    return known or fresh


def _settle(state: State, job: Job, part: Part, lease: Lease) -> None:
    if lease.kind is LeaseKind.CHUNK:
        tokens = part.tally.prompt_tokens + part.tally.output_tokens
        state.settle(lease.fence, tokens, part.row_count, state.chunks[job.name][part.chunk_start].missing)


def _mark_done(state: State, job: Job, part: Part, lease: Lease) -> None:
    chunks = state.chunks[job.name]
    chunk = chunks[part.chunk_start]
    chunk = replace(chunk, done=chunk.done | part.rows)
    if chunk.done != rowset.full(chunk.rows):
        chunks[chunk.start] = chunk
        return
    del chunks[chunk.start]
    if not chunks:
        del state.chunks[job.name]
    if lease.kind is LeaseKind.CHUNK:
        state.drop_lease(lease.fence)
        state.in_flight.shift(job, -1)


def _pace(pace: Pace | None, now_ns: int, rows: int) -> Pace:
    if pace is None:
        return Pace(now_ns, rows, now_ns, rows)
    return replace(pace, last_ns=now_ns, rows=pace.rows + rows)


def chunk_requeued(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The chunk's missing rows wait again."""
    requeued = event.chunk_requeued
    job = state.jobs[requeued.job]
    chunk = state.chunks[job.name][requeued.chunk_start]
    chunk = _after(chunk, state.leases[requeued.fence], requeued)
    state.chunks[job.name][chunk.start] = chunk
    state.put_back(job.name, chunk)
    state.drop_lease(requeued.fence)
    state.in_flight.shift(job, -1)
    state.put(changed(job, leased_rows=job.leased_rows - chunk.missing, revision=event.sequence))


def _after(chunk: Chunk, lease: Lease, requeued: ledger_pb2.ChunkRequeued) -> Chunk:
    ready_at_ns = from_timestamp(requeued.ready_time) if requeued.HasField("ready_time") else 0
    chunk = replace(chunk, fence=0, ready_at_ns=ready_at_ns)
    if requeued.reason in UNCOUNTED:
        return chunk
    if requeued.reason != ledger_pb2.REQUEUE_REASON_ENGINE_DIED:
        return replace(chunk, failures=chunk.failures + 1)
    return replace(chunk, suspect=True, deaths=chunk.deaths + 1, deaths_alone=chunk.deaths_alone + lease.alone)
