"""How many tokens the open jobs still need, by deadline: what admission and ETAs are computed from without a scan.

Deadlines are rounded down to minutes, so a month holds at most 43,200 steps, and a curve is as long as the minutes in
which deadlines lie. Tokens turn into seconds only when asked, at the rate known then.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field

from services.scheduler.core.indices import Counts
from services.scheduler.core.records import Job
from services.scheduler.core.times import SECOND
from tidemill.v1 import job_pb2

STEP_NS = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens at the 50th and the 90th percentile."""

    p50: int
    p90: int

    def minus(self, other: "Tokens") -> "Tokens":
        """The difference."""
        return Tokens(self.p50 - other.p50, self.p90 - other.p90)


NO_TOKENS = Tokens(0, 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one job still needs. `firm` unless it was sealed at risk: nobody promised that one its deadline."""

    step: int
    model: str
    tenant: str
    tokens: Tokens
    firm: bool

    def stands_with(self, other: "Claim") -> bool:
        """Whether they differ in tokens alone."""
        mine, theirs = (self.step, self.model, self.firm), (other.step, other.model, other.firm)
        return mine == theirs and self.tenant == other.tenant


def claim_of(job: Job) -> Claim | None:
    """The job's claim; None for one that is not sealed, does not run, or misses no row."""
    missing = job.missing
    waits = job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
    if job.seal is None or job.ending is not None or not waits or not missing:
        return None
    tokens = Tokens(missing * job.row_tokens, missing * job.row_tokens_p90)
    return Claim(job.deadline_ns // STEP_NS, job.model, job.tenant, tokens, not job.admitted_at_risk)


@dataclass(slots=True)
class Curve:
    """Tokens by deadline step and model; `steps` rise, `models` counts the claims of each model."""

    steps: list[int] = field(default_factory=list[int])
    p50: dict[int, Counts[str]] = field(default_factory=dict[int, Counts[str]])
    p90: dict[int, Counts[str]] = field(default_factory=dict[int, Counts[str]])
    models: Counts[str] = field(default_factory=Counts[str])

    def shift(self, claim: Claim, tokens: Tokens, claims: int) -> None:
        """Add so many tokens and claims, or take them away where negative, where `claim` stands."""
        step = claim.step
        if claims:
            self.models.shift(claim.model, claims)
        if step not in self.p90:
            insort(self.steps, step)
            self.p50[step] = Counts[str]()
            self.p90[step] = Counts[str]()
        self.p50[step].shift(claim.model, tokens.p50)
        self.p90[step].shift(claim.model, tokens.p90)
        if not self.p90[step]:
            del self.p50[step], self.p90[step], self.steps[bisect_left(self.steps, step)]

    def steps_from(self, step: int) -> list[int]:
        """The steps not before `step`, rising."""
        return self.steps[bisect_left(self.steps, step) :]

    def steps_until(self, step: int) -> list[int]:
        """The steps not after `step`, rising."""
        return self.steps[: bisect_right(self.steps, step)]


@dataclass(slots=True)
class Demand:
    """The claims of all jobs, of the firm ones, and of each tenant's."""

    claims: dict[str, Claim] = field(default_factory=dict[str, Claim])
    everything: Curve = field(default_factory=Curve)
    firm: Curve = field(default_factory=Curve)
    tenants: dict[str, Curve] = field(default_factory=dict[str, Curve])

    def set(self, job: Job) -> None:
        """Bring the job's claim up to date."""
        before, after = self.claims.get(job.name), claim_of(job)
        if before == after:
            return
        if before is not None and after is not None and before.stands_with(after):
            # Each commit comes this way.
            self.claims[job.name] = after
            self._shift(after, after.tokens.minus(before.tokens), 0)
            return
        if before is not None:
            del self.claims[job.name]
            self._shift(before, NO_TOKENS.minus(before.tokens), -1)
        if after is not None:
            self.claims[job.name] = after
            self._shift(after, after.tokens, 1)

    def _shift(self, claim: Claim, tokens: Tokens, claims: int) -> None:
        self.everything.shift(claim, tokens, claims)
        if claim.firm:
            self.firm.shift(claim, tokens, claims)
        curve = self.tenants.get(claim.tenant)
        if curve is None:
            curve = self.tenants[claim.tenant] = Curve()
        curve.shift(claim, tokens, claims)
        if not curve.steps:
            del self.tenants[claim.tenant]
