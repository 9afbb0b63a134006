"""Until when promised work leaves no room for anything else.

Slack of single jobs does not see that many of them need the same hours. This does: at each deadline it compares the
firm work due by then with the time until then. Where little is left over, every job due by that moment is served in the
order of deadlines, and a plan that was feasible stays so (Liu and Layland 1973: that order is optimal).
"""

from services.scheduler.core.demand import STEP_NS
from services.scheduler.core.prospects import Backlog, Rates
from services.scheduler.core.times import SECOND

RESERVED_CHUNKS = 2.0
"""Chunks that an engine may be busy with before it turns to urgent work, and lose to uneven ends."""


def tight_until_ns(backlog: Backlog) -> int:
    """The last deadline at which less than a reserve is left over; 0 where there is room everywhere.

    Deadlines whose work cannot be done in time any more are passed over: hurrying for them would help nobody.
    """
    engines = backlog.capacity.engines
    curve = backlog.state.demand.firm
    if not engines or not curve.steps:
        return 0
    rates = Rates(backlog.state)
    cost = {model: 1 / rates.rate(model) / engines for model in curve.models}
    load = max(backlog.capacity.first_load(model) for model in cost)
    reserve_ns = (RESERVED_CHUNKS * backlog.limits.chunk_seconds + load) * SECOND
    tight, due_ns = 0, 0.0
    for step in curve.steps_from(backlog.now_ns // STEP_NS):
        due_ns += sum(tokens * cost[model] for model, tokens in curve.p90[step].items()) * SECOND
        left_ns = (step + 1) * STEP_NS - backlog.now_ns - due_ns
        if 0 <= left_ns < reserve_ns:
            tight = (step + 1) * STEP_NS
    return tight
