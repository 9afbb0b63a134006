"""Events after a job's end: deleted, swept, forgotten. The job may have left memory for the archive by then."""

from dataclasses import replace

from services.scheduler.core.backoff import backoff_ns
from services.scheduler.core.records import Cleanup, Lease, LeaseKind
from services.scheduler.core.state import State
from services.scheduler.core.times import from_timestamp
from tidemill.internal.v1 import ledger_pb2


def job_deleted(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Nobody sees the job any more."""
    deleted = event.job_deleted
    cleanup = state.cleanups[deleted.job]
    state.put_cleanup(deleted.job, replace(cleanup, purge_ns=from_timestamp(deleted.purge_time)))
    state.hide(deleted.job)


def cleanup_leased(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """A worker has the task."""
    leased = event.cleanup_leased
    fence = state.fence_of(event)
    purge = leased.kind == ledger_pb2.CLEANUP_KIND_PURGE
    state.add_lease(Lease(fence, LeaseKind.CLEANUP, leased.job, leased.worker_id, leased.attempt, purge=purge))
    state.put_cleanup(leased.job, replace(state.cleanups[leased.job], fence=fence))


def cleanup_requeued(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The task waits again; after a failure for a while."""
    requeued = event.cleanup_requeued
    cleanup = state.cleanups[requeued.job]
    failures, ready_at_ns = cleanup.failures, state.time_ns
    if requeued.reason != ledger_pb2.REQUEUE_REASON_RELEASED:
        failures += 1
        ready_at_ns += backoff_ns(failures, requeued.fence)
    state.drop_lease(requeued.fence)
    state.put_cleanup(requeued.job, replace(cleanup, fence=0, failures=failures, ready_at_ns=ready_at_ns))


def cleanup_finished(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Stray files are gone; or all of them, and with them the job."""
    finished = event.cleanup_finished
    if finished.fence:
        state.drop_lease(finished.fence)
    if finished.kind == ledger_pb2.CLEANUP_KIND_PURGE:
        state.put_cleanup(finished.job, None)
        if finished.job in state.jobs:
            state.forget(finished.job)
        return
    before = state.cleanups[finished.job]
    after = Cleanup(before.end_ns, swept=True, purge_ns=before.purge_ns)
    state.put_cleanup(finished.job, after)
