"""Who runs next.

Closing tasks come first: they are short, need no engine and make finished work visible. Then chunks, in three tiers:
jobs short of slack (`urgency`), then the tenants' turns on the loaded models (`sharing`), and past its valve or for
want of work those on other models. Caps are checked in the same step (`eligible`); a worker never stays idle while it
may have a chunk (I7).
"""

from services.scheduler.core.eligible import cut, full, open_models
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Ask, Offer, Policy, Work
from services.scheduler.core.records import LeaseKind
from services.scheduler.core.sharing import fair_job
from services.scheduler.core.state import State
from services.scheduler.core.urgency import urgent_job

__all__ = ["TIERED", "Offer", "Policy", "TieredPolicy", "Work", "next_work"]


class TieredPolicy:
    """Closing tasks, the urgent tier, the fair tier with its valve."""

    def choose(self, state: State, offer: Offer, limits: Limits, now_ns: int) -> Work | None:
        """The work that is due next; see `Policy`."""
        return closing_task(state, now_ns) or self._chunk(Ask(state, offer, limits, now_ns))

    def _chunk(self, ask: Ask) -> Work | None:
        if full(ask.state, ask.limits):
            return None
        models = open_models(ask)
        job = urgent_job(ask, models) or fair_job(ask, models)
        return cut(ask, job) if job else None


TIERED = TieredPolicy()


def next_work(state: State, offer: Offer, limits: Limits, now_ns: int) -> Work | None:
    """The work that is due next to this worker; None when there is none that it may have."""
    return TIERED.choose(state, offer, limits, now_ns)


def closing_task(state: State, now_ns: int) -> Work | None:
    """The closing task that has waited longest."""
    # The ledger's time may be ahead of a wall clock that was set back.
    if not state.closing or state.closing[0][0] > max(now_ns, state.time_ns):
        return None
    return Work(LeaseKind.FINALISE, state.closing[0][2])
