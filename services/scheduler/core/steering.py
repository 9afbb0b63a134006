"""Commands that steer a job on its way: pause, resume, update, requeue a chunk, fail by force."""

from dataclasses import replace

from services.scheduler.core.checks import find_job, require, state_name
from services.scheduler.core.deadlines import check_window
from services.scheduler.core.endings import already_ended, end_job
from services.scheduler.core.records import Job, Terms
from services.scheduler.core.state import State
from services.scheduler.core.times import from_timestamp, to_timestamp
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2, scheduler_service_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

PAUSED_BY_OWNER = "PAUSED_BY_OWNER"

FORCED_BY_OPERATOR = "FORCED_BY_OPERATOR"


def pause_job(state: State, name: str) -> Events:
    """Give the job no more leases; no event when it is paused already.

    Raises:
        TidemillError: JOB_NOT_FOUND or JOB_NOT_PAUSABLE.
    """
    job = find_job(state, name)
    if job.pause is not None:
        return []
    _check_pausable(job)
    return [job_paused(name, PAUSED_BY_OWNER, "paused by its owner; ResumeJob lets it go on")]


def job_paused(job: str, reason: str, message: str) -> ledger_pb2.LedgerEvent:
    """The event."""
    return ledger_pb2.LedgerEvent(job_paused=ledger_pb2.JobPaused(job=job, reason=reason, message=message))


def resume_job(state: State, name: str) -> Events:
    """Let a paused job go on; no event when it is not paused.

    Raises:
        TidemillError: JOB_NOT_FOUND or JOB_NOT_PAUSABLE.
    """
    job = find_job(state, name)
    _check_pausable(job)
    if job.pause is None:
        return []
    return [ledger_pb2.LedgerEvent(job_resumed=ledger_pb2.JobResumed(job=name))]


def _check_pausable(job: Job) -> None:
    if job.seal is not None and job.open:
        return
    remedy = "seal it first" if job.receiving else "there is nothing left to pause"
    raise TidemillError(
        Reason.JOB_NOT_PAUSABLE,
        f"job {job.name} is {state_name(job)}; only one that is QUEUED, RUNNING or PAUSED can be paused or resumed: "
        f"{remedy}",
        metadata={"job": job.name, "state": state_name(job)},
    )


def update_job(state: State, request: scheduler_service_pb2.UpdateJobRequest, now_ns: int) -> Events:
    """Change the job's terms; no event when nothing would change.

    Whether a new deadline can be promised is for admission to say, before the event is recorded.

    Raises:
        TidemillError: JOB_NOT_FOUND, JOB_TERMINAL, DEADLINE_OUT_OF_RANGE or INVALID_ARGUMENT.
    """
    job = find_job(state, request.job)
    if not job.open:
        raise already_ended(job, "update")
    terms = updated_terms(job, request)
    if request.HasField("complete_by_time"):
        check_window(terms.deadline_ns, now_ns, "complete_by_time")
    at_risk = request.accept_at_risk if request.HasField("accept_at_risk") else job.admitted_at_risk
    if (terms, at_risk) == (job.terms, job.admitted_at_risk):
        return []
    return [ledger_pb2.LedgerEvent(job_updated=_updated(job.name, terms, at_risk))]


def updated_terms(job: Job, request: scheduler_service_pb2.UpdateJobRequest) -> Terms:
    """The job's terms with what the request sets."""
    terms = job.terms
    if request.HasField("complete_by_time"):
        terms = replace(terms, deadline_ns=from_timestamp(request.complete_by_time))
    if request.HasField("service_class"):
        known = request.service_class in job_pb2.ServiceClass.values()
        require(known, "service_class", "must be URGENT, STANDARD or FLEX")
        terms = replace(terms, service_class=request.service_class or job_pb2.SERVICE_CLASS_STANDARD)
    if request.HasField("on_deadline"):
        require(request.on_deadline in job_pb2.DeadlinePolicy.values(), "on_deadline", "must be RUN_LATE or EXPIRE")
        terms = replace(terms, on_deadline=request.on_deadline or job_pb2.DEADLINE_POLICY_RUN_LATE)
    if request.HasField("escalation"):
        wanted = request.escalation
        terms = replace(terms, raise_class=wanted.raise_class, more_parallelism=wanted.more_parallelism)
    return terms


def _updated(job: str, terms: Terms, at_risk: bool) -> ledger_pb2.JobUpdated:
    return ledger_pb2.JobUpdated(
        job=job,
        complete_by_time=to_timestamp(terms.deadline_ns),
        service_class=terms.service_class,
        on_deadline=terms.on_deadline,
        escalation=job_pb2.Escalation(raise_class=terms.raise_class, more_parallelism=terms.more_parallelism),
        admitted_at_risk=at_risk,
    )


def force_fail_job(state: State, request: scheduler_service_pb2.ForceFailJobRequest) -> Events:
    """End the job as FAILED, whatever it is doing; no event when that was asked before.

    Raises:
        TidemillError: JOB_NOT_FOUND, or JOB_TERMINAL when it has ended otherwise.
    """
    job = find_job(state, request.job)
    if job.ending is not None and job.ending.reason == FORCED_BY_OPERATOR:
        return []
    if job.terminal:
        raise already_ended(job, "fail")
    message = request.message or "failed by an operator, who gave no reason"
    return end_job(job, job_pb2.JOB_STATE_FAILED, FORCED_BY_OPERATOR, message)
