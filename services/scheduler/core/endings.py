"""How a job heads for its terminal state, and the command that makes it terminal."""

from services.scheduler.core.checks import find_job, require_key, require_sha256, state_name
from services.scheduler.core.codec import tally_of
from services.scheduler.core.records import Job, JobState
from services.scheduler.core.state import State
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, scheduler_service_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

MAX_MESSAGE_CHARS = 2000


def end_job(job: Job, outcome: JobState, reason: str = "", message: str = "") -> Events:
    """Head for `outcome`. A job without rows gets there at once: there is nothing for a worker to close."""
    events = [_ending(job.name, outcome, reason, message)]
    return events if job.end else [*events, _finished_unclosed(job.name, outcome)]


def stop_job(state: State, job: Job, outcome: JobState) -> Events:
    """Head for `outcome`, and let workers commit what they have done first if they are at it."""
    if not state.leases_of.get(job.name):
        return end_job(job, outcome)
    return [ledger_pb2.LedgerEvent(job_stopping=ledger_pb2.JobStopping(job=job.name, outcome=outcome))]


def end_stopped(state: State, job: Job) -> Events:
    """The rest of a stop whose last open lease is about to end; no event while there are others, or without a stop."""
    if job.stopping is None or len(state.leases_of.get(job.name, ())) > 1:
        return []
    return end_job(job, job.stopping.outcome)


def end_due_stop(state: State, now_ns: int) -> Events:
    """End the first stopping job whose moment is over; call again until there is no event."""
    name = state.agenda.stops.due(now_ns)
    if name is None:
        return []
    job = state.jobs[name]
    return end_job(job, job.stopping.outcome) if job.stopping else []


def fail_unclosed(job: str, reason: str, message: str) -> Events:
    """Fail a job whose closing task cannot succeed, such as over corrupt data: it ends without an output manifest."""
    failed = job_pb2.JOB_STATE_FAILED
    return [_ending(job, failed, reason, message), _finished_unclosed(job, failed)]


def _ending(job: str, outcome: JobState, reason: str, message: str) -> ledger_pb2.LedgerEvent:
    ending = ledger_pb2.JobEnding(job=job, outcome=outcome, reason=reason, message=message[:MAX_MESSAGE_CHARS])
    return ledger_pb2.LedgerEvent(job_ending=ending)


def _finished_unclosed(job: str, outcome: JobState) -> ledger_pb2.LedgerEvent:
    return ledger_pb2.LedgerEvent(job_finished=ledger_pb2.JobFinished(job=job, state=outcome))


def already_ended(job: Job, verb: str) -> TidemillError:
    """The refusal to `verb` a job whose end is decided."""
    outcome = job_pb2.JobState.Name(job.heading_for or job.state).removeprefix("JOB_STATE_")
    moment = "has ended" if job.terminal else "is ending"
    return TidemillError(
        Reason.JOB_TERMINAL,
        f"job {job.name} {moment} as {outcome}: there is nothing left to {verb}",
        metadata={"job": job.name, "state": state_name(job), "outcome": outcome},
    )


def stale_fence(job: str, fence: int) -> TidemillError:
    """The refusal of work under a lease that is over."""
    return TidemillError(
        Reason.STALE_FENCE,
        f"fence {fence} of job {job} is not live: the lease expired, was given back or became void; drop its work",
        metadata={"job": job, "fence": fence},
    )


def finish_job(state: State, request: scheduler_service_pb2.FinishJobRequest) -> Events:
    """Make the job terminal; no event when this very call succeeded before.

    Raises:
        TidemillError: JOB_NOT_FOUND, STALE_FENCE, TALLY_MISMATCH while rows miss results or when the manifest counts
            otherwise than the ledger, or INVALID_ARGUMENT.
    """
    job = find_job(state, request.lease.job)
    fence = request.lease.fence
    if job.terminal and _same_finish(job, request):
        return []
    if job.ending is None or not fence or job.ending.fence != fence:
        raise stale_fence(job.name, fence)
    require_sha256(request.output_data_version, "output_data_version")
    require_key(request.output_manifest_key, job.name, "output", "output_manifest_key")
    _check_tally(job, request)
    finished = ledger_pb2.JobFinished(
        job=job.name,
        fence=fence,
        state=job.ending.outcome,
        output_data_version=request.output_data_version,
        output_manifest_key=request.output_manifest_key,
    )
    return [ledger_pb2.LedgerEvent(job_finished=finished)]


def _same_finish(job: Job, request: scheduler_service_pb2.FinishJobRequest) -> bool:
    return (
        job.output_manifest_key == request.output_manifest_key
        and job.output_data_version == request.output_data_version
        and job.tally == tally_of(request.tally)
    )


def _check_tally(job: Job, request: scheduler_service_pb2.FinishJobRequest) -> None:
    counted = tally_of(request.tally)
    if counted == job.tally and job.results == job.end:
        return
    raise TidemillError(
        Reason.TALLY_MISMATCH,
        f"the manifest of job {job.name} counts {counted} where the ledger counts {job.tally} of {job.end} rows",
        metadata={"job": job.name, "rows": job.end, "results": job.results, "manifest_rows": counted.rows},
    )


def succeeded(job: Job) -> Events:
    """The events after the last row of a job got its result."""
    return end_job(job, job_pb2.JOB_STATE_SUCCEEDED)
