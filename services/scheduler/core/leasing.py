"""Commands of workers about leases: take, give back, lose."""

from services.scheduler.core.checks import find_job
from services.scheduler.core.cleanup import lease_cleanup
from services.scheduler.core.endings import stale_fence
from services.scheduler.core.estimates import tokens_per_row
from services.scheduler.core.fairness import priced
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import TIERED, Offer, Policy, Work
from services.scheduler.core.records import Chunk, LeaseKind, Requeue
from services.scheduler.core.requeues import EXPIRED, TAKEN_BACK, requeue_lease
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

Events = list[ledger_pb2.LedgerEvent]

OVERDUE_NS = 3600 * SECOND
"""Cleaning up waits so long for an idle worker, then it goes first: under steady load no worker is ever idle, and what
was promised to be removed would stay. An hour is little beside the day that a deletion takes anyhow."""


def lease_next(state: State, offer: Offer, limits: Limits, now_ns: int, policy: Policy = TIERED) -> Events:
    """Lease the one piece of work that is due next to the worker; no event when there is none for it."""
    if overdue := lease_cleanup(state, offer.worker_id, limits, now_ns - OVERDUE_NS):
        return overdue
    work = policy.choose(state, offer, limits, now_ns)
    if work is None:
        return lease_cleanup(state, offer.worker_id, limits, now_ns)
    if work.kind is LeaseKind.FINALISE:
        attempt = state.jobs[work.job].expect_ending().failures + 1
        closing = ledger_pb2.FinaliseLeased(job=work.job, worker_id=offer.worker_id, attempt=attempt)
        return [ledger_pb2.LedgerEvent(finalise_leased=closing)]
    return [ledger_pb2.LedgerEvent(chunk_leased=_chunk_leased(state, work, offer.worker_id, limits))]


def _chunk_leased(state: State, work: Work, worker_id: str, limits: Limits) -> ledger_pb2.ChunkLeased:
    """The lease of a returned or a fresh chunk: its rows without a result, at the class that the job has now."""
    job = state.jobs[work.job]
    chunk = state.chunks.get(work.job, {}).get(work.chunk_start) or Chunk(work.chunk_start, work.chunk_rows)
    price = limits.price(job.service_class)
    return ledger_pb2.ChunkLeased(
        job=work.job,
        chunk_start=chunk.start,
        chunk_rows=chunk.rows,
        worker_id=worker_id,
        attempt=chunk.attempt,
        alone=chunk.suspect,
        price=price,
        charged_tokens=priced(chunk.missing * tokens_per_row(state, job), price),
    )


def release_lease(state: State, job: str, fence: int, requeue: Requeue, limits: Limits) -> Events:
    """End a live lease undone at its worker's word.

    Raises:
        TidemillError: JOB_NOT_FOUND or STALE_FENCE.
    """
    lease = state.leases.get(fence)
    if lease is None or lease.job != job:
        find_job(state, job)
        raise stale_fence(job, fence)
    return requeue_lease(state, lease, requeue, limits)


def expire_lease(state: State, fence: int, limits: Limits) -> Events:
    """End a lease that was not extended in time; no event when it is over already."""
    lease = state.leases.get(fence)
    return requeue_lease(state, lease, EXPIRED, limits) if lease else []


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
