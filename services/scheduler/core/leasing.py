"""Commands of workers about leases: take, give back, lose."""

from dataclasses import dataclass

from services.scheduler.core.checks import find_job
from services.scheduler.core.endings import MAX_MESSAGE_CHARS, end_job, end_stopped, fail_unclosed, stale_fence
from services.scheduler.core.estimates import tokens_per_row
from services.scheduler.core.fairness import priced
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import TIERED, Offer, Policy
from services.scheduler.core.records import UNCOUNTED, Lease, LeaseKind
from services.scheduler.core.state import State
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

CHUNK_ATTEMPTS_EXHAUSTED = "CHUNK_ATTEMPTS_EXHAUSTED"

RequeueReason = ledger_pb2.RequeueReason


@dataclass(frozen=True, slots=True)
class Requeue:
    """How a lease ends undone. `fatal_reason` says that another attempt cannot help."""

    reason: "ledger_pb2.RequeueReason.ValueType"
    message: str = ""
    fatal_reason: str = ""


EXPIRED = Requeue(ledger_pb2.REQUEUE_REASON_EXPIRED)

TAKEN_BACK = Requeue(ledger_pb2.REQUEUE_REASON_OPERATOR, "taken back by an operator")


def lease_next(state: State, offer: Offer, limits: Limits, now_ns: int, policy: Policy = TIERED) -> Events:
    """Lease the one piece of work that is due next to the worker; no event when there is none for it."""
    work = policy.choose(state, offer, limits, now_ns)
    if work is None:
        return []
    if work.kind is LeaseKind.FINALISE:
        closing = ledger_pb2.FinaliseLeased(job=work.job, worker_id=offer.worker_id, attempt=work.attempt)
        return [ledger_pb2.LedgerEvent(finalise_leased=closing)]
    leased = ledger_pb2.ChunkLeased(
        job=work.job,
        chunk_start=work.chunk_start,
        chunk_rows=work.chunk_rows,
        worker_id=offer.worker_id,
        attempt=work.attempt,
    )
    _charge(state, leased, limits)
    return [ledger_pb2.LedgerEvent(chunk_leased=leased)]


def _charge(state: State, leased: ledger_pb2.ChunkLeased, limits: Limits) -> None:
    """Price the rows without a result, at the class that the job has now."""
    job = state.jobs[leased.job]
    chunk = state.chunks.get(leased.job, {}).get(leased.chunk_start)
    rows = chunk.missing if chunk else leased.chunk_rows
    leased.price = limits.price(job.service_class)
    leased.charged_tokens = priced(round(rows * tokens_per_row(state, job)), leased.price)


def release_lease(state: State, job: str, fence: int, requeue: Requeue, limits: Limits) -> Events:
    """End a live lease undone at its worker's word.

    Raises:
        TidemillError: JOB_NOT_FOUND or STALE_FENCE.
    """
    find_job(state, job)
    lease = state.leases.get(fence)
    if lease is None or lease.job != job:
        raise stale_fence(job, fence)
    return requeue_lease(state, lease, requeue, limits)


def expire_lease(state: State, fence: int, limits: Limits) -> Events:
    """End a lease that was not extended in time; no event when it is over already."""
    lease = state.leases.get(fence)
    return requeue_lease(state, lease, EXPIRED, limits) if lease else []


def requeue_lease(state: State, lease: Lease, requeue: Requeue, limits: Limits) -> Events:
    """The work waits again, or the job fails: on a fatal reason, or when one chunk failed too often."""
    if lease.kind is LeaseKind.FINALISE:
        return _closing_undone(lease, requeue)
    events = [_chunk_requeued(lease, requeue)]
    job = state.jobs[lease.job]
    if job.stopping is not None:
        return [*events, *end_stopped(state, job)]
    if requeue.fatal_reason:
        return [*events, *end_job(job, job_pb2.JOB_STATE_FAILED, requeue.fatal_reason, requeue.message)]
    failures = state.chunks[lease.job][lease.chunk_start].failures + 1
    if requeue.reason in UNCOUNTED or failures < limits.max_attempts:
        return events
    message = _exhausted(lease, failures, requeue)
    return [*events, *end_job(job, job_pb2.JOB_STATE_FAILED, CHUNK_ATTEMPTS_EXHAUSTED, message)]


def requeue_chunk(state: State, name: str, row_index: int, limits: Limits) -> Events:
    """Take the chunk with this row from its worker, at an operator's word.

    Raises:
        TidemillError: JOB_NOT_FOUND or CHUNK_NOT_LEASED.
    """
    find_job(state, name)
    for fence in state.leases_of.get(name, ()):
        lease = state.leases[fence]
        if lease.kind is LeaseKind.CHUNK and row_index in state.chunks[name][lease.chunk_start].range:
            return requeue_lease(state, lease, TAKEN_BACK, limits)
    raise TidemillError(
        Reason.CHUNK_NOT_LEASED,
        f"row {row_index} of job {name} is at no worker: it waits, has a result or does not exist",
        metadata={"job": name, "row_index": row_index},
    )


def _closing_undone(lease: Lease, requeue: Requeue) -> Events:
    """The task waits again; on a fatal reason the job fails without an output manifest, or it would never end (I10)."""
    events = [_finalise_requeued(lease, requeue)]
    if not requeue.fatal_reason:
        return events
    return [*events, *fail_unclosed(lease.job, requeue.fatal_reason, requeue.message)]


def _exhausted(lease: Lease, failures: int, requeue: Requeue) -> str:
    words = requeue.message or f"worker {lease.worker_id} stopped extending its lease"
    return f"the chunk at row {lease.chunk_start} failed {failures} times; the last time: {words}"


def _chunk_requeued(lease: Lease, requeue: Requeue) -> ledger_pb2.LedgerEvent:
    requeued = ledger_pb2.ChunkRequeued(
        job=lease.job,
        chunk_start=lease.chunk_start,
        fence=lease.fence,
        reason=requeue.reason,
        message=requeue.message[:MAX_MESSAGE_CHARS],
    )
    return ledger_pb2.LedgerEvent(chunk_requeued=requeued)


def _finalise_requeued(lease: Lease, requeue: Requeue) -> ledger_pb2.LedgerEvent:
    requeued = ledger_pb2.FinaliseRequeued(
        job=lease.job, fence=lease.fence, reason=requeue.reason, message=requeue.message[:MAX_MESSAGE_CHARS]
    )
    return ledger_pb2.LedgerEvent(finalise_requeued=requeued)
