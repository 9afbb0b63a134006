"""Keep a job's outlook current, and raise its class or parallelism when it is at risk and its owner asked for that."""

from services.scheduler.core.prospects import Backlog, outlook
from services.scheduler.core.records import TERMINAL_STATES, Job, Outlook, ServiceClass
from services.scheduler.core.times import SECOND, to_timestamp
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

MOVED = 0.1
"""An ETA is written again when it moved by this share of the time left to it: the ledger is no log of every guess."""

LEAST_MOVE_NS = 5 * SECOND
SOONEST_NS = SECOND
LATEST_NS = 60 * SECOND
BLIND_NS = 10 * SECOND

ESCALATED_PARALLELISM = 2

_ABOVE: dict[ServiceClass, ServiceClass] = {
    job_pb2.SERVICE_CLASS_FLEX: job_pb2.SERVICE_CLASS_STANDARD,
    job_pb2.SERVICE_CLASS_STANDARD: job_pb2.SERVICE_CLASS_URGENT,
}


def review(backlog: Backlog, job: Job) -> Events:
    """The events about a changed outlook, and an escalation where one is due; none for a job that does not run."""
    if job.seal is None or job.ending is not None or job.state in TERMINAL_STATES:
        return []
    now = outlook(backlog, job)
    events = [_changed(job.name, now)] if _differs(job.outlook, now, backlog.now_ns) else []
    if now.state in (job_pb2.SLA_STATE_AT_RISK, job_pb2.SLA_STATE_BREACHED):
        events += _escalation(job)
    return events


def _differs(before: Outlook, now: Outlook, now_ns: int) -> bool:
    if before.state != now.state or bool(before.eta_p50_ns) != bool(now.eta_p50_ns):
        return True
    allowed = max(LEAST_MOVE_NS, int(MOVED * (now.eta_p50_ns - now_ns)))
    moves = (now.eta_p50_ns - before.eta_p50_ns, now.eta_p90_ns - before.eta_p90_ns)
    return max(map(abs, moves)) > allowed


def _changed(job: str, now: Outlook) -> ledger_pb2.LedgerEvent:
    changed = ledger_pb2.SlaChanged(job=job, state=now.state)
    if now.eta_p50_ns:
        changed.eta_p50_time.CopyFrom(to_timestamp(now.eta_p50_ns))
        changed.eta_p90_time.CopyFrom(to_timestamp(now.eta_p90_ns))
    return ledger_pb2.LedgerEvent(sla_changed=changed)


def _escalation(job: Job) -> Events:
    """At most one a job: what was raised stays raised."""
    raised = job.raised_class
    if job.terms.raise_class and not raised:
        raised = _ABOVE.get(job.terms.service_class, raised)
    parallelism = ESCALATED_PARALLELISM if job.terms.more_parallelism else job.parallelism
    if (raised, parallelism) == (job.raised_class, job.parallelism):
        return []
    escalated = ledger_pb2.JobEscalated(job=job.name, service_class=raised, parallelism=parallelism)
    return [ledger_pb2.LedgerEvent(job_escalated=escalated)]


def next_review_ns(job: Job, now_ns: int) -> int:
    """When to look again: the nearer the end and the deadline lie together, the sooner; at the deadline in any case."""
    deadline = job.deadline_ns
    if job.outlook.eta_p90_ns:
        pause = min(max(abs(deadline - job.outlook.eta_p90_ns) // 4, SOONEST_NS), LATEST_NS)
    else:
        pause = BLIND_NS
    due = now_ns + pause
    return min(due, deadline) if deadline > now_ns else due
