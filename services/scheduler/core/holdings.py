"""What each tenant holds of the service, and what it used today: the figures that quotas are compared with."""

from dataclasses import dataclass, field

from services.scheduler.core.records import Job
from services.scheduler.core.times import SECOND

DAY_NS = 86_400 * SECOND


@dataclass(frozen=True, slots=True)
class Holding:
    """Jobs that have not ended, their rows without a result, and the estimated tokens of those that are sealed."""

    jobs: int = 0
    rows: int = 0
    tokens: int = 0

    def plus(self, other: "Holding", sign: int) -> "Holding":
        """The sum, or with sign -1 the difference."""
        return Holding(self.jobs + sign * other.jobs, self.rows + sign * other.rows, self.tokens + sign * other.tokens)


NOTHING = Holding()


def holding_of(job: Job) -> Holding:
    """What one job adds."""
    if job.terminal:
        return NOTHING
    return Holding(1, job.missing, job.missing * job.row_tokens)


@dataclass(slots=True)
class Holdings:
    """Sums by tenant; a tenant that holds nothing is absent."""

    tenants: dict[str, Holding] = field(default_factory=dict[str, Holding])

    def of(self, tenant: str) -> Holding:
        """What the tenant holds."""
        return self.tenants.get(tenant, NOTHING)

    def move(self, before: Job | None, after: Job) -> None:
        """Take `before` away and add `after`, the same job."""
        lost, gained = holding_of(before) if before is not None else NOTHING, holding_of(after)
        if lost == gained:
            return
        held = self.of(after.tenant).plus(gained, 1).plus(lost, -1)
        if held == NOTHING:
            self.tenants.pop(after.tenant, None)
        else:
            self.tenants[after.tenant] = held


@dataclass(slots=True)
class Spending:
    """Tokens answered by tenant on the latest day (UTC) on which it got answers."""

    days: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def add(self, tenant: str, tokens: int, now_ns: int) -> None:
        """Count answered tokens."""
        if tokens:
            self.days[tenant] = (now_ns // DAY_NS, self.today(tenant, now_ns) + tokens)

    def today(self, tenant: str, now_ns: int) -> int:
        """Tokens answered since midnight."""
        day, tokens = self.days.get(tenant, (0, 0))
        return tokens if day == now_ns // DAY_NS else 0
