"""Pages of a tenant's jobs, by model and labels too."""

from collections.abc import Callable
from dataclasses import dataclass

from services.scheduler.archive import Archive
from services.scheduler.core.records import Job
from tidemill.internal.v1 import scheduler_service_pb2 as pb

_BATCH = 500
# No index knows models and labels. A call looks at so many jobs at most, and the next one goes on behind them.
_MOST_LOOKED_AT = 5000


@dataclass(frozen=True)
class Found:
    """Jobs, newest first; `rest` is the name below which more may follow, empty at the end."""

    jobs: list[Job]
    rest: str


async def find_jobs(archive: Archive, request: pb.ListJobsRequest, tenant: str, limit: int) -> Found:
    """At most `limit` jobs that the request asks for; fewer, with a `rest`, where only few of many fit."""
    if not request.model and not request.labels:
        jobs = await archive.list_jobs(tenant, request.states, request.before_name, limit + 1)
        return _cut(jobs, limit, "")
    fits = _filter(request)
    jobs, before, looked_at = list[Job](), request.before_name, 0
    while len(jobs) <= limit and looked_at < _MOST_LOOKED_AT:
        batch = await archive.list_jobs(tenant, request.states, before, _BATCH)
        jobs += filter(fits, batch)
        looked_at += len(batch)
        if len(batch) < _BATCH:
            return _cut(jobs, limit, "")
        before = batch[-1].name
    return _cut(jobs, limit, before)


def _cut(jobs: list[Job], limit: int, rest: str) -> Found:
    return Found(jobs[:limit], jobs[limit - 1].name) if len(jobs) > limit else Found(jobs, rest)


def _filter(request: pb.ListJobsRequest) -> Callable[[Job], bool]:
    wanted = dict(request.labels)

    def fits(job: Job) -> bool:
        labels = job.spec.labels
        return request.model in ("", job.model) and all(labels.get(key) == value for key, value in wanted.items())

    return fits
