"""The urgent tier: jobs that are short of slack, and can still be saved."""

from services.scheduler.core.eligible import job_cap, job_open, tenant_open
from services.scheduler.core.offers import Ask
from services.scheduler.core.records import Job
from services.scheduler.core.slack import parallelism, remaining_ns, window_ns
from services.scheduler.core.times import SECOND

URGENT_LOOKS = 32
"""Jobs of a model that one choice looks at, those shortest of slack first: it bounds the choice, whatever is open."""

LATE_LOOKS = 10
"""The same for jobs that should have begun by the index's guess: more engines may have come since."""

RESERVED_CHUNKS = 2.0
"""Chunks that an engine may be busy with before it turns to urgent work, and lose to uneven ends."""


def slack_ns(ask: Ask, job: Job) -> int:
    """Time that the job can still wait when this worker and its like do the rest; negative once it is doomed."""
    remaining = remaining_ns(job, ask.state.pace(job.model))
    chunk_ns = round(ask.limits.chunk_seconds * SECOND)
    shared = parallelism(remaining, chunk_ns, ask.engines(job.model), job_cap(job, ask.limits))
    load_ns = round(ask.load_seconds(job.model) * SECOND)
    return job.deadline_ns - ask.now_ns - remaining // shared - load_ns


def urgent_job(ask: Ask, models: list[str]) -> str | None:
    """The urgent job with the earliest deadline among those that can still hold theirs.

    A job of a loaded model goes before it where it can wait: going from model to model by deadlines costs all of them.
    """
    here = _first(ask, [model for model in models if ask.offer.is_resident(model)])
    there = _first(ask, [model for model in models if not ask.offer.is_resident(model)])
    if here is None or there is None:
        first = here or there
    else:
        first = here if here.deadline_ns <= there.deadline_ns or _can_wait(ask, there) else there
    return first.name if first else None


def _can_wait(ask: Ask, job: Job) -> bool:
    reserve_ns = RESERVED_CHUNKS * ask.limits.chunk_seconds * SECOND
    return job.deadline_ns >= ask.offer.tightness.strained_until_ns and slack_ns(ask, job) >= reserve_ns


def _first(ask: Ask, models: list[str]) -> Job | None:
    """The urgent job with the earliest deadline, among these models."""
    best: Job | None = None
    for model in models:
        for latest_start, window, name in ask.state.ready.starting_from(model, ask.now_ns, URGENT_LOOKS, LATE_LOOKS):
            job = ask.state.jobs[name]
            soon = latest_start - ask.now_ns <= ask.limits.urgent_slack * window + ask.load_seconds(model) * SECOND
            if not soon and not _crowded(ask, job):
                continue
            earlier = best is None or (job.deadline_ns, name) < (best.deadline_ns, best.name)
            if earlier and _urgent(ask, job) and tenant_open(ask, job.tenant) and job_open(ask, job):
                best = job
    return best


def _urgent(ask: Ask, job: Job) -> bool:
    if job.admitted_at_risk:
        # Nobody promised it its deadline: its urgency must not take what others were promised, or are due.
        return False
    slack = slack_ns(ask, job)
    return slack >= 0 and (_crowded(ask, job) or slack < ask.limits.urgent_slack * window_ns(job))


def _crowded(ask: Ask, job: Job) -> bool:
    """Whether the promised work leaves no room until the job's deadline, though the job alone has slack."""
    return job.deadline_ns < ask.offer.tightness.until_ns
