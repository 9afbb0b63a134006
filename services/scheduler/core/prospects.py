"""When a job will end: its own work, the work that goes before it, and what its tenant's share leaves.

An ETA is bounded from three sides. Under its tenant's fair share the job ends at `fair`. The service never idles, so it
ends before all the work there is (`everything`). And if the fair share comes too late, the urgent tier serves deadlines
in order, so it ends when all work of earlier deadlines has (`by_deadline`), not before it became urgent.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from services.scheduler.core.capacity import Capacity
from services.scheduler.core.demand import STEP_NS, Curve
from services.scheduler.core.estimates import GUESSED_RATE, model_rate, rate_spread
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Job, Outlook
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tidemill.v1 import job_pb2

FALLING_BACK = 0.05
"""A job at risk counts as on track again only with so much of its time left to spare: outlooks must not flutter."""

PATIENCE = 0.5
"""A job whose end cannot be told is at risk once so much of its window is over."""


FAR_SECONDS = 10 * 365 * 86_400.0
"""No end is told beyond: such a job is not to be run, and times have bounds."""


@dataclass(frozen=True, slots=True)
class Work:
    """A job, or an imagined one: what its end depends on. Tokens of the rows that miss results.

    `job` names the job whose claim the demand holds already; empty where it holds none.
    """

    tenant: str
    model: str
    deadline_ns: int
    tokens_p50: int
    tokens_p90: int
    weight: float
    job: str = ""


@dataclass(frozen=True, slots=True)
class Eta:
    """When a piece of work starts and ends, in nanoseconds, and the engine-seconds it takes at the 50th percentile."""

    start_ns: int
    p50_ns: int
    p90_ns: int
    engine_seconds: float


def work_of(job: Job, limits: Limits) -> Work:
    """The rest of a job that is sealed or about to be."""
    weight = limits.weight(job.service_class)
    tokens = (job.missing * max(1, job.row_tokens), job.missing * max(1, job.row_tokens_p90))
    return Work(job.tenant, job.model, job.deadline_ns, *tokens, weight, job.name if job.seal else "")


@dataclass(frozen=True, slots=True)
class Backlog:
    """The demand at one moment: make one, ask it for many jobs. Sums run over minutes with deadlines, not over jobs."""

    state: State
    capacity: Capacity
    limits: Limits
    now_ns: int
    sums: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict[str, tuple[list[int], list[float]]])

    def eta(self, work: Work) -> Eta | None:
        """The end of `work`; None while no worker offers its model or the model's rate is unknown."""
        rate = model_rate(self.state, work.model)
        if rate is None or not self.capacity.by_model.get(work.model):
            return None
        own50, own90 = work.tokens_p50 / rate, work.tokens_p90 / rate
        spread = rate_spread(self.state.pace(work.model))
        start, p50 = self._finish(work, own50)
        _, late = self._finish(work, own90)
        p90 = late * spread
        return Eta(self._at(start), self._at(p50), self._at(max(p50, p90)), own50)

    def _at(self, seconds: float) -> int:
        return self.now_ns + int(min(seconds, FAR_SECONDS) * SECOND)

    def width(self, model: str, seconds: float) -> float:
        """How many engines at a time a job of so many engine-seconds may have: at most as many as it has chunks."""
        chunks = max(1.0, seconds / self.limits.chunk_seconds)
        return min(self.capacity.by_model[model], chunks, self.limits.max_leases_per_job)

    def _finish(self, work: Work, own: float) -> tuple[float, float]:
        """(seconds to its start, seconds to its end) of work that takes `own` engine-seconds."""
        engines = self.capacity.by_model[work.model]
        load = self.capacity.first_load(work.model)
        width = self.width(work.model, own)
        alone = load + own / width
        counted = own if work.job in self.state.demand.claims else 0.0
        total = max(0.0, self._seconds("", None) - counted)
        earlier = max(0.0, self._seconds("", work.deadline_ns) - counted)
        mine = max(0.0, self._seconds(work.tenant, work.deadline_ns) - counted)
        everything = (total + own) / engines
        fair = (mine + own) / (engines * self._share(work))
        by_deadline = (earlier + own) / engines
        time_left = max(0.0, (work.deadline_ns - self.now_ns) / SECOND)
        queued = min(everything, fair, max(by_deadline, time_left * (1 - self.limits.urgent_slack)))
        end = max(alone, load + queued)
        return max(0.0, end - own / width), end

    def _share(self, work: Work) -> float:
        others = sum(1 for tenant in self.state.demand.tenants if tenant != work.tenant)
        return work.weight / (work.weight + others * self.limits.standard_weight)

    def _seconds(self, tenant: str, until_ns: int | None) -> float:
        """Engine-seconds, at the 50th percentile, of a tenant's claims (empty: of all) up to a deadline."""
        if tenant not in self.sums:
            self.sums[tenant] = self._running_sums(tenant)
        steps, sums = self.sums[tenant]
        end = len(steps) if until_ns is None else bisect_right(steps, until_ns // STEP_NS)
        return sums[end]

    def _running_sums(self, tenant: str) -> tuple[list[int], list[float]]:
        demand = self.state.demand
        curve = demand.tenants.get(tenant, _NOTHING) if tenant else demand.everything
        rates = Rates(self.state)
        cost = {name: 1 / rates.rate(name) for name in curve.models}
        seconds = (sum(n * cost[name] for name, n in curve.p50[step].items()) for step in curve.steps)
        return list(curve.steps), list(accumulate(seconds, initial=0.0))


_NOTHING = Curve()


class Rates:
    """Tokens per second by model; a model of unknown rate counts at the mean of the known ones."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rates: dict[str, float] = {}

    def rate(self, model: str) -> float:
        """Tokens a second."""
        if model not in self._rates:
            self._rates[model] = model_rate(self._state, model) or self._mean()
        return self._rates[model]

    def _mean(self) -> float:
        known = [rate for model in self._state.paces if (rate := model_rate(self._state, model))]
        return sum(known) / len(known) if known else GUESSED_RATE


def outlook(backlog: Backlog, job: Job) -> Outlook:
    """How the job stands now."""
    eta = backlog.eta(work_of(job, backlog.limits)) if job.state != job_pb2.JOB_STATE_PAUSED else None
    now, deadline = backlog.now_ns, job.deadline_ns
    if now >= deadline:
        state = job_pb2.SLA_STATE_BREACHED
    elif eta is None:
        patience = job.create_ns + (deadline - job.create_ns) * PATIENCE
        state = job_pb2.SLA_STATE_AT_RISK if now > patience else job_pb2.SLA_STATE_ON_TRACK
    else:
        recovering = job.outlook.state == job_pb2.SLA_STATE_AT_RISK
        spare = (deadline - now) * FALLING_BACK if recovering else 0
        at_risk = eta.p90_ns > deadline - spare
        state = job_pb2.SLA_STATE_AT_RISK if at_risk else job_pb2.SLA_STATE_ON_TRACK
    return Outlook(state, eta.p50_ns if eta else 0, eta.p90_ns if eta else 0)
