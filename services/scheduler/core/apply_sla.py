"""Events about a job's outlook."""

from dataclasses import replace

from services.scheduler.core.records import Job, Outlook
from services.scheduler.core.state import State
from services.scheduler.core.times import from_timestamp
from tidemill.internal.v1 import ledger_pb2


def sla_changed(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The outlook is another one; the first that names an end is what later accuracy is judged by."""
    changed = event.sla_changed
    seen = Outlook(
        changed.state,
        from_timestamp(changed.eta_p50_time) if changed.HasField("eta_p50_time") else 0,
        from_timestamp(changed.eta_p90_time) if changed.HasField("eta_p90_time") else 0,
    )
    job = replace(state.jobs[changed.job], outlook=seen, revision=event.sequence)
    state.put(promised(job, state.time_ns))


def promised(job: Job, now_ns: int) -> Job:
    """The job with its first ETA noted."""
    if job.promised_ns or not job.outlook.eta_p50_ns:
        return job
    return replace(
        job, promised_ns=now_ns, promised_p50_ns=job.outlook.eta_p50_ns, promised_p90_ns=job.outlook.eta_p90_ns
    )


def job_escalated(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The policy sees a higher class, or a wider cap."""
    escalated = event.job_escalated
    state.put(
        replace(
            state.jobs[escalated.job],
            raised_class=escalated.service_class,
            parallelism=max(1, escalated.parallelism),
            revision=event.sequence,
        )
    )
