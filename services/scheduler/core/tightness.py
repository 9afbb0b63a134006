"""Until when promised work leaves no room for anything else.

Slack of single jobs does not see that many of them need the same hours. This does: at each deadline it compares the
firm work due by then with the time until then. Where little is left over, every job due by that moment goes before the
tenants' turns, a loaded model's first; where next to nothing is, in the order of deadlines alone, and a plan that was
feasible stays so (Liu and Layland 1973: that order is optimal). Their order goes from model to model, and each change
costs every engine a load: there has to be time for those while the models can still be taken one after another.
"""

from collections.abc import Collection

from services.scheduler.core.demand import STEP_NS
from services.scheduler.core.offers import Tightness
from services.scheduler.core.prospects import Backlog, Rates
from services.scheduler.core.times import SECOND
from services.scheduler.core.urgency import RESERVED_CHUNKS


def tightness(backlog: Backlog) -> Tightness:
    """The last deadlines at which less than each reserve is left over; zeros where there is room everywhere.

    Deadlines whose work cannot be done in time any more are passed over: hurrying for them would help nobody.
    """
    engines, curve = backlog.capacity.engines, backlog.state.demand.firm
    if not engines:
        return Tightness()
    rates = Rates(backlog.state)
    models: set[str] = set()
    tight = strained = 0
    due_seconds = 0.0
    for step in curve.steps_from(backlog.now_ns // STEP_NS):
        models.update(curve.p90[step])
        due_seconds += sum(tokens / rates.rate(model) for model, tokens in curve.p90[step].items()) / engines
        end = (step + 1) * STEP_NS
        left = (end - backlog.now_ns) / SECOND - due_seconds
        some, least = _reserves(backlog, models)
        if 0 <= left < some:
            tight = end
        if 0 <= left < least:
            strained = end
    return Tightness(tight, strained)


def _reserves(backlog: Backlog, models: Collection[str]) -> tuple[float, float]:
    """Seconds that each engine may need beside the work of these models: to load each of them once, and one of them."""
    capacity = backlog.capacity
    chunks = RESERVED_CHUNKS * backlog.limits.chunk_seconds
    loads = [capacity.load_time(model) if len(models) > 1 else capacity.first_load(model) for model in models]
    return chunks + sum(loads), chunks + max(loads)
