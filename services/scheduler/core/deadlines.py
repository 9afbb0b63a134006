"""Which deadlines are taken, and what happens at one."""

from services.scheduler.core.endings import stop_job
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, to_timestamp
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2

Events = list[ledger_pb2.LedgerEvent]

MIN_WINDOW_NS = 60 * SECOND
MAX_WINDOW_NS = 30 * 24 * 3600 * SECOND

TRAVEL_NS = 5 * SECOND
"""A deadline that was a minute away at the gateway is a little nearer when it gets here, and clocks differ a little."""


def check_window(deadline_ns: int, now_ns: int, field: str) -> None:
    """Refuse a deadline that is not one minute to thirty days away.

    Raises:
        TidemillError: DEADLINE_OUT_OF_RANGE.
    """
    window_ns = deadline_ns - now_ns
    if MIN_WINDOW_NS - TRAVEL_NS <= window_ns <= MAX_WINDOW_NS + TRAVEL_NS:
        return
    asked = to_timestamp(deadline_ns).ToJsonString()
    now = to_timestamp(now_ns).ToJsonString()
    raise TidemillError(
        Reason.DEADLINE_OUT_OF_RANGE,
        f"{field} {asked} must be one minute to thirty days from now, {now}",
        metadata={"field": field, "complete_by_time": asked, "now": now, "min_seconds": 60, "max_seconds": 30 * 86400},
    )


def expire_due(state: State, now_ns: int) -> Events:
    """Stop the first job whose deadline is over and whose owner wants it to expire then; call again until no event."""
    name = state.agenda.deadlines.due(now_ns)
    return stop_job(state, state.jobs[name], job_pb2.JOB_STATE_EXPIRED) if name else []
