"""Everything that time alone brings about: what is recorded, and when to look again."""

from services.scheduler.core import cleanup, deadlines, endings, jobs
from services.scheduler.core.limits import Limits
from services.scheduler.core.state import State
from tidemill.internal.v1 import ledger_pb2

Events = list[ledger_pb2.LedgerEvent]


def due_events(state: State, limits: Limits, now_ns: int) -> Events:
    """The events of one thing that is due; record them and call again until there is none."""
    return (
        endings.end_due_stop(state, max(now_ns, state.time_ns))
        or deadlines.expire_due(state, now_ns)
        or jobs.expire_oldest(state, now_ns)
        or cleanup.delete_oldest(state, limits, now_ns)
    )


def next_event_ns(state: State, limits: Limits) -> int | None:
    """When, by the wall clock, `due_events` has something next; None if never."""
    agenda = state.agenda
    unsealed, kept = jobs.next_expiry_ns(state), cleanup.next_retention_ns(state, limits)
    times = (agenda.deadlines.first(), unsealed, kept)
    return min((time for time in times if time is not None), default=None)


def next_wait_ns(state: State, limits: Limits, now_ns: int) -> int | None:
    """When, by the ledger's time, a stop ends or work that only waits for its time may be leased; None if never."""
    times = [first for first in (state.agenda.stops.first(), state.agenda.chunks.first()) if first is not None]
    # What could be leased before now waits for a worker, not for the time.
    times += [state.closing[0][0]] if state.closing and state.closing[0][0] > now_ns else []
    times += [time for time in cleanup.next_cleanup_ns(state, limits) if time > now_ns]
    return min(times, default=None)
