"""Events that take a job to its terminal state."""

from bisect import bisect_left, insort
from dataclasses import replace

from services.scheduler.core.backoff import backoff_ns
from services.scheduler.core.chunks import remainder_pieces
from services.scheduler.core.paces import score
from services.scheduler.core.records import Chunk, Cleanup, Ending, Job, Lease, LeaseKind
from services.scheduler.core.state import Closing, State
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2


def job_ending(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """No more leases. Unless every row is done, open leases are void and what was never cut becomes remainders.

    A job that is ending already changes its outcome: its closing task has failed for good, or is taken from its worker.
    """
    heading = event.job_ending
    job = state.jobs[heading.job]
    state.receiving.pop(job.name, None)
    if job.ending is not None:
        _take_back_closing(state, job.name, job.ending)
    _void_leases(state, job)
    _cut_remainders(state, job)
    ending = Ending(heading.outcome, heading.reason, heading.message, event.sequence, ready_at_ns=state.time_ns)
    insort(state.closing, _closing(job.name, ending))
    state.put(
        replace(
            job,
            state=_state_while_ending(job, ending),
            ending=ending,
            pause=None,
            stopping=None,
            leased_rows=0,
            next_cut=job.end,
            revision=event.sequence,
        )
    )


def _state_while_ending(job: Job, ending: Ending) -> "job_pb2.JobState.ValueType":
    """A job that never ran cannot keep a state that promises to take rows or to wait for a worker."""
    stopped = ending.outcome in (job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_EXPIRED)
    ran = job.state == job_pb2.JOB_STATE_RUNNING or (job.pause is not None and job.first_fence > 0)
    return job_pb2.JOB_STATE_RUNNING if ran and not stopped else job_pb2.JOB_STATE_CANCELLING


def _void_leases(state: State, job: Job) -> None:
    for fence in sorted(state.leases_of.get(job.name, ())):
        lease = state.drop_lease(fence)
        state.in_flight.shift(job, -1)
        chunk = state.chunks[job.name][lease.chunk_start]
        state.chunks[job.name][chunk.start] = replace(chunk, fence=0)
    for start in state.chunks.get(job.name, {}):
        state.agenda.chunks.set((job.name, start), None)
    state.waiting.pop(job.name, None)


def _cut_remainders(state: State, job: Job) -> None:
    for start, rows in remainder_pieces(job.next_cut, job.end):
        state.chunks.setdefault(job.name, {})[start] = Chunk(start, rows)


def _closing(job: str, ending: Ending) -> Closing:
    return (ending.ready_at_ns, ending.sequence, job)


def _take_back_closing(state: State, job: str, ending: Ending) -> None:
    if ending.fence:
        state.drop_lease(ending.fence)
    else:
        _drop_closing(state, job, ending)


def _drop_closing(state: State, job: str, ending: Ending) -> None:
    del state.closing[bisect_left(state.closing, _closing(job, ending))]


def finalise_leased(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """A worker has the closing task."""
    leased = event.finalise_leased
    job = state.jobs[leased.job]
    ending = job.expect_ending()
    _drop_closing(state, job.name, ending)
    fence = state.fence_of(event)
    state.add_lease(Lease(fence, LeaseKind.FINALISE, job.name, leased.worker_id, leased.attempt))
    state.put(replace(job, ending=replace(ending, fence=fence), revision=event.sequence))


def finalise_requeued(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The closing task waits again, for a while unless it was given back.

    Else a broken store would fill the ledger, and a task that kills its workers would take one after the other.
    """
    requeued = event.finalise_requeued
    job = state.jobs[requeued.job]
    ending = job.expect_ending()
    failed = requeued.reason != ledger_pb2.REQUEUE_REASON_RELEASED
    failures = ending.failures + failed
    ready_at_ns = state.time_ns + (backoff_ns(failures, requeued.fence) if failed else 0)
    ending = replace(ending, fence=0, failures=failures, ready_at_ns=ready_at_ns)
    state.drop_lease(requeued.fence)
    insort(state.closing, _closing(job.name, ending))
    state.put(replace(job, ending=ending, revision=event.sequence))


def job_finished(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Nothing about the job changes any more."""
    finished = event.job_finished
    job = state.jobs[finished.job]
    ending = job.expect_ending()
    if finished.state == job_pb2.JOB_STATE_SUCCEEDED:
        state.paces[job.model] = score(state.pace(job.model), job, state.time_ns)
    _take_back_closing(state, job.name, ending)
    state.put(
        replace(
            job,
            state=finished.state,
            ending=replace(ending, fence=0),
            end_ns=state.time_ns,
            output_data_version=finished.output_data_version,
            output_manifest_key=finished.output_manifest_key,
            revision=event.sequence,
        )
    )
    state.put_cleanup(job.name, Cleanup(state.time_ns))
