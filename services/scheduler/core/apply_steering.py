"""Events that steer a job: paused, resumed, updated, stopping."""

from dataclasses import replace

from services.scheduler.core.breaker import ALL_ROWS_FAILED
from services.scheduler.core.records import Pause, Stopping, Terms
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, from_timestamp
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

STOP_GRACE_NS = 2 * SECOND
"""Open leases of a job that stops live so long: time to abort its rows at the engine and to commit what is done."""


def job_paused(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """No more leases until it is resumed; open ones live on."""
    paused = event.job_paused
    job = state.jobs[paused.job]
    pause = Pause(paused.reason, paused.message)
    state.put(replace(job, state=job_pb2.JOB_STATE_PAUSED, pause=pause, revision=event.sequence))


def job_resumed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The job goes on where it stood."""
    job = state.jobs[event.job_resumed.job]
    before = job_pb2.JOB_STATE_RUNNING if job.first_fence else job_pb2.JOB_STATE_QUEUED
    breaker_off = job.breaker_off or (job.pause is not None and job.pause.reason == ALL_ROWS_FAILED)
    state.put(replace(job, state=before, pause=None, breaker_off=breaker_off, revision=event.sequence))


def job_updated(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Other terms from now on. An escalation that its owner takes back ends."""
    updated = event.job_updated
    terms = Terms(
        deadline_ns=from_timestamp(updated.complete_by_time),
        service_class=updated.service_class,
        on_deadline=updated.on_deadline,
        raise_class=updated.escalation.raise_class,
        more_parallelism=updated.escalation.more_parallelism,
    )
    job = state.jobs[updated.job]
    state.put(
        replace(
            job,
            terms=terms,
            raised_class=job.raised_class if terms.raise_class else job_pb2.SERVICE_CLASS_UNSPECIFIED,
            parallelism=job.parallelism if terms.more_parallelism else 1,
            admitted_at_risk=updated.admitted_at_risk,
            revision=event.sequence,
        )
    )


def job_stopping(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """No more leases; open ones live for a moment."""
    heading = event.job_stopping
    job = state.jobs[heading.job]
    stopping = Stopping(heading.outcome, state.time_ns + STOP_GRACE_NS)
    cancelling = job_pb2.JOB_STATE_CANCELLING
    state.put(replace(job, state=cancelling, pause=None, stopping=stopping, revision=event.sequence))
