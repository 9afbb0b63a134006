"""What one tenant may hold: jobs, rows and tokens that wait or run, and tokens a day. Zero means no limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.core.estimates import tokens_per_row
from services.scheduler.core.holdings import DAY_NS
from services.scheduler.core.records import Job
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from tidemill.errors import Reason, TidemillError

RETRY_SECONDS = 30.0
"""When to try again where nothing but other work's end helps."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One tenant's limits.

    Attributes:
        jobs: jobs that have not ended.
        rows: rows of them without a result.
        tokens: estimated tokens of those rows.
        tokens_per_day: tokens answered since midnight UTC, and those of the job to be sealed.
        chunks: chunks at workers at a time; 0 takes the common cap.
    """

    jobs: int = 0
    rows: int = 0
    tokens: int = 0
    tokens_per_day: int = 0
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of each tenant; the others get `default`."""

    default: Quota = field(default_factory=Quota)
    tenants: Mapping[str, Quota] = field(default_factory=dict[str, Quota])

    def of(self, tenant: str) -> Quota:
        """The tenant's limits."""
        return self.tenants.get(tenant, self.default)


def check_create(state: State, tenant: str, quota: Quota) -> None:
    """Raise QUOTA_EXCEEDED if another job is one too many."""
    held = state.holdings.of(tenant).jobs
    if quota.jobs and held >= quota.jobs:
        remedy = "wait until one of your jobs has ended, or cancel one"
        raise _exceeded(tenant, "jobs", (quota.jobs, held, held + 1), remedy)


def check_append(state: State, job: Job, rows: int, quota: Quota) -> None:
    """Raise QUOTA_EXCEEDED if these rows are too many."""
    held = state.holdings.of(job.tenant).rows
    if quota.rows and held + rows > quota.rows:
        remedy = "append fewer, or wait until rows of your other jobs have results"
        raise _exceeded(job.tenant, "rows", (quota.rows, held, held + rows), remedy)


def check_seal(state: State, job: Job, quota: Quota, now_ns: int) -> None:
    """Raise QUOTA_EXCEEDED if the job's tokens are too many."""
    own = job_tokens(state, job)
    held = state.holdings.of(job.tenant).tokens
    if quota.tokens and held + own > quota.tokens:
        remedy = "seal it once your other jobs have ended"
        raise _exceeded(job.tenant, "tokens", (quota.tokens, held, held + own), remedy)
    spent = state.spending.today(job.tenant, now_ns)
    if quota.tokens_per_day and spent + own > quota.tokens_per_day:
        midnight = (DAY_NS - now_ns % DAY_NS) / SECOND
        remedy = "seal it after midnight UTC" if own <= quota.tokens_per_day else "split the job"
        raise _exceeded(job.tenant, "tokens_per_day", (quota.tokens_per_day, spent, spent + own), remedy, midnight)


def uses(state: State, tenant: str, quota: Quota, chunk_cap: int, now_ns: int) -> list[tuple[str, int, int]]:
    """(what, limit, used) of each limit; the chunks of a tenant are capped by `chunk_cap`."""
    held = state.holdings.of(tenant)
    return [
        ("jobs", quota.jobs, held.jobs),
        ("rows", quota.rows, held.rows),
        ("tokens", quota.tokens, held.tokens),
        ("tokens_per_day", quota.tokens_per_day, state.spending.today(tenant, now_ns)),
        ("chunks", chunk_cap, state.in_flight.by_tenant[tenant]),
    ]


def day_end_ns(now_ns: int) -> int:
    """Midnight UTC after `now_ns`."""
    return now_ns - now_ns % DAY_NS + DAY_NS


def job_tokens(state: State, job: Job) -> int:
    """Estimated tokens of the job's rows without a result."""
    return job.missing * tokens_per_row(state, job)


def _exceeded(
    tenant: str, what: str, figures: tuple[int, int, int], remedy: str, retry_after: float = RETRY_SECONDS
) -> TidemillError:
    limit, held, wanted = figures
    return TidemillError(
        Reason.QUOTA_EXCEEDED,
        f"tenant {tenant} may hold {limit} {what} and would hold {wanted} ({held} now); {remedy}",
        metadata={"subject": f"tenants/{tenant}", "quota": what, "limit": limit, "held": held, "wanted": wanted},
        retry_after=retry_after,
    )
