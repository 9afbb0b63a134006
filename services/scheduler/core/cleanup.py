"""What happens to a job after its end: deleted by its owner or by age, swept for stray files, its folder removed.

A deleted job is hidden at once and keeps its data for a day. Removing files is work for a worker: a CLEANUP lease, of
the lowest priority and few at a time.
"""

from services.scheduler.core.checks import find_job, state_name
from services.scheduler.core.endings import MAX_MESSAGE_CHARS, stale_fence
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Lease, LeaseKind, Requeue
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, to_timestamp
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

Events = list[ledger_pb2.LedgerEvent]

DELETED_NS = 24 * 3600 * SECOND
"""Data of a deleted job is kept so long."""


def delete_job(state: State, name: str, now_ns: int) -> Events:
    """Hide a terminal job; no event when it is deleted already.

    Raises:
        TidemillError: JOB_NOT_FOUND or JOB_NOT_TERMINAL.
    """
    if name in state.cleanups:
        return [] if state.cleanups[name].purge_ns else [_deleted(name, now_ns)]
    job = find_job(state, name)
    raise TidemillError(
        Reason.JOB_NOT_TERMINAL,
        f"job {name} is {state_name(job)}; only a job that has ended can be deleted: cancel it first",
        metadata={"job": name, "state": state_name(job)},
    )


def check_revision(state: State, name: str, revision: int) -> None:
    """Raise ETAG_MISMATCH when the job has another revision; 0 is any. An archived job changes no more."""
    job = state.jobs.get(name)
    if revision and job is not None and not job.deleted and job.revision != revision:
        raise TidemillError(
            Reason.ETAG_MISMATCH,
            f"job {name} has changed since its etag was read: read the job again and decide anew",
            metadata={"job": name},
        )


def _deleted(name: str, now_ns: int) -> ledger_pb2.LedgerEvent:
    deleted = ledger_pb2.JobDeleted(job=name, purge_time=to_timestamp(now_ns + DELETED_NS))
    return ledger_pb2.LedgerEvent(job_deleted=deleted)


def delete_oldest(state: State, limits: Limits, now_ns: int) -> Events:
    """Delete the job that ended first if it has been kept long enough; call again until there is no event."""
    name = state.agenda.kept.due(now_ns - limits.retention_ns)
    return [_deleted(name, now_ns)] if name else []


def lease_cleanup(state: State, worker_id: str, limits: Limits, now_ns: int) -> Events:
    """Lease the task that is due first; no event when there is none, or enough are at workers."""
    if state.cleanups_leased >= limits.max_cleanups:
        return []
    name = state.agenda.cleanups.due(now_ns) or state.agenda.unswept.due(now_ns - limits.orphan_ns)
    if name is None:
        return []
    cleanup = state.cleanups[name]
    kind = cleanup_kind(purge=cleanup.purge_ns > 0)
    leased = ledger_pb2.CleanupLeased(job=name, kind=kind, worker_id=worker_id, attempt=cleanup.failures + 1)
    return [ledger_pb2.LedgerEvent(cleanup_leased=leased)]


def cleanup_kind(*, purge: bool) -> "ledger_pb2.CleanupKind.ValueType":
    """What a task removes: the job's whole folder, or only the files that the ledger does not name."""
    return ledger_pb2.CLEANUP_KIND_PURGE if purge else ledger_pb2.CLEANUP_KIND_ORPHANS


def cleanup_undone(lease: Lease, requeue: Requeue) -> Events:
    """The task waits again."""
    requeued = ledger_pb2.CleanupRequeued(
        job=lease.job, fence=lease.fence, reason=requeue.reason, message=requeue.message[:MAX_MESSAGE_CHARS]
    )
    return [ledger_pb2.LedgerEvent(cleanup_requeued=requeued)]


def finish_cleanup(state: State, name: str, fence: int, files: int) -> Events:
    """End a task. There is no way to tell a repeat from a stale fence, and no need: either way nothing is left to do.

    Raises:
        TidemillError: STALE_FENCE.
    """
    lease = state.leases.get(fence)
    if lease is None or lease.job != name or lease.kind is not LeaseKind.CLEANUP:
        raise stale_fence(name, fence)
    finished = ledger_pb2.CleanupFinished(job=name, fence=fence, kind=cleanup_kind(purge=lease.purge), files=files)
    return [ledger_pb2.LedgerEvent(cleanup_finished=finished)]


def next_retention_ns(state: State, limits: Limits) -> int | None:
    """When the next job has been kept long enough; None without one."""
    first = state.agenda.kept.first()
    return None if first is None else first + limits.retention_ns


def next_cleanup_ns(state: State, limits: Limits) -> list[int]:
    """When the next tasks are due."""
    unswept, waiting = state.agenda.unswept.first(), state.agenda.cleanups.first()
    times = [] if unswept is None else [unswept + limits.orphan_ns]
    return times if waiting is None else [*times, waiting]
