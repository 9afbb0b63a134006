"""How a lease ends undone, and what that leads to."""

from dataclasses import replace

from services.scheduler.core.backoff import backoff_ns
from services.scheduler.core.cleanup import cleanup_undone
from services.scheduler.core.endings import MAX_MESSAGE_CHARS, end_job, end_stopped, fail_unclosed
from services.scheduler.core.limits import Limits
from services.scheduler.core.poison import after_death, judged
from services.scheduler.core.records import UNCOUNTED, Chunk, Lease, LeaseKind, Requeue
from services.scheduler.core.state import State
from services.scheduler.core.times import to_timestamp
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

CHUNK_ATTEMPTS_EXHAUSTED = "CHUNK_ATTEMPTS_EXHAUSTED"

EXPIRED = Requeue(ledger_pb2.REQUEUE_REASON_EXPIRED)

TAKEN_BACK = Requeue(ledger_pb2.REQUEUE_REASON_OPERATOR, "taken back by an operator")


def requeue_lease(state: State, lease: Lease, requeue: Requeue, limits: Limits) -> Events:
    """The work waits again, or the job fails: on a fatal reason, or when one chunk failed too often."""
    if lease.kind is LeaseKind.CLEANUP:
        return cleanup_undone(lease, requeue)
    if lease.kind is LeaseKind.FINALISE:
        return _closing_undone(lease, requeue)
    return _chunk_undone(state, lease, requeue, limits)


def _chunk_undone(state: State, lease: Lease, requeue: Requeue, limits: Limits) -> Events:
    job, chunk = state.jobs[lease.job], state.chunks[lease.job][lease.chunk_start]
    requeue = judged(requeue, chunk, limits)
    events = [_chunk_requeued(state, lease, chunk, requeue)]
    if job.stopping is not None:
        return [*events, *end_stopped(state, job)]
    if requeue.fatal_reason:
        return [*events, *end_job(job, job_pb2.JOB_STATE_FAILED, requeue.fatal_reason, requeue.message)]
    if requeue.reason == ledger_pb2.REQUEUE_REASON_ENGINE_DIED:
        return [*events, *after_death(job, chunk, lease, limits)]
    failures = chunk.failures + 1
    if requeue.reason in UNCOUNTED or failures < limits.max_attempts:
        return events
    message = _exhausted(lease, failures, requeue)
    return [*events, *end_job(job, job_pb2.JOB_STATE_FAILED, CHUNK_ATTEMPTS_EXHAUSTED, message)]


def _closing_undone(lease: Lease, requeue: Requeue) -> Events:
    """The task waits again; on a fatal reason the job fails without an output manifest, or it would never end (I10)."""
    if requeue.reason == ledger_pb2.REQUEUE_REASON_ENGINE_DIED:
        # It needs no engine: whatever died, the task failed.
        requeue = replace(requeue, reason=ledger_pb2.REQUEUE_REASON_FAILED)
    events = [_finalise_requeued(lease, requeue)]
    if not requeue.fatal_reason:
        return events
    return [*events, *fail_unclosed(lease.job, requeue.fatal_reason, requeue.message)]


def _exhausted(lease: Lease, failures: int, requeue: Requeue) -> str:
    words = requeue.message or f"worker {lease.worker_id} stopped extending its lease"
    return f"the chunk at row {lease.chunk_start} failed {failures} times; the last time: {words}"


def _chunk_requeued(state: State, lease: Lease, chunk: Chunk, requeue: Requeue) -> ledger_pb2.LedgerEvent:
    requeued = ledger_pb2.ChunkRequeued(
        job=lease.job,
        chunk_start=lease.chunk_start,
        fence=lease.fence,
        reason=requeue.reason,
        message=requeue.message[:MAX_MESSAGE_CHARS],
    )
    if requeue.reason not in UNCOUNTED:
        requeued.ready_time.CopyFrom(to_timestamp(state.time_ns + _wait_ns(lease, chunk, requeue)))
    return ledger_pb2.LedgerEvent(chunk_requeued=requeued)


def _wait_ns(lease: Lease, chunk: Chunk, requeue: Requeue) -> int:
    """Deaths wait by their own count: it is the engine that has to come back, and a search must not slow down."""
    died = requeue.reason == ledger_pb2.REQUEUE_REASON_ENGINE_DIED
    return backoff_ns((chunk.deaths_alone if died else chunk.failures) + 1, lease.fence)


def _finalise_requeued(lease: Lease, requeue: Requeue) -> ledger_pb2.LedgerEvent:
    requeued = ledger_pb2.FinaliseRequeued(
        job=lease.job, fence=lease.fence, reason=requeue.reason, message=requeue.message[:MAX_MESSAGE_CHARS]
    )
    return ledger_pb2.LedgerEvent(finalise_requeued=requeued)
