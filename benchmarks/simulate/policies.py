"""The policies that are compared: all choose among the same eligible chunks of the same core.

The plain ones scan what is ready: they are yardsticks, not candidates.
"""

from collections.abc import Callable, Iterable
from typing import Any

from services.scheduler.core.eligible import cut, full, job_open, open_models, tenant_open
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Ask, Offer, Policy, Work
from services.scheduler.core.policy import TIERED, closing_task
from services.scheduler.core.records import Job
from services.scheduler.core.state import State

Key = Callable[[Ask, Job], Any]


class Ranked:
    """The eligible job that comes first by a key."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def choose(self, state: State, offer: Offer, limits: Limits, now_ns: int) -> Work | None:
        """See `Policy`."""
        ask = Ask(state, offer, limits, now_ns)
        task = closing_task(state, now_ns)
        if task is not None or full(state, limits):
            return task
        job = min(_eligible(ask), key=lambda each: self._key(ask, each), default=None)
        return cut(ask, job.name) if job else None


def _eligible(ask: Ask) -> Iterable[Job]:
    for model in open_models(ask):
        for _, tenant in ask.state.accounts.order(model):
            if tenant_open(ask, tenant):
                jobs = (ask.state.jobs[name] for _, _, name in ask.state.ready.tenant_jobs(model, tenant))
                yield from (job for job in jobs if job_open(ask, job))


def _first_come(_: Ask, job: Job) -> Any:
    return job.expect_seal().sequence


def _deadline(_: Ask, job: Job) -> Any:
    return (job.deadline_ns, job.expect_seal().sequence)


def _deadline_here_first(ask: Ask, job: Job) -> Any:
    return (not ask.offer.is_resident(job.model), *_deadline(ask, job))


def _least_served(ask: Ask, job: Job) -> Any:
    return (ask.state.accounts.tokens[job.tenant], job.tenant, *_deadline(ask, job))


POLICIES: dict[str, Policy] = {
    "fifo": Ranked(_first_come),
    "edf": Ranked(_deadline),
    "edf_affinity": Ranked(_deadline_here_first),
    "fair": Ranked(_least_served),
    "ours": TIERED,
}
