"""What becomes due by itself as time passes: each list is in order of time, so that nothing is ever searched for."""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from services.scheduler.core.records import Cleanup, Job
from tidemill.v1 import job_pb2

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class DueTimes(Generic[K]):
    """Keys in order of the time at which each is due."""

    times: dict[K, int] = field(default_factory=dict[Any, int])
    order: list[tuple[int, K]] = field(default_factory=list[tuple[int, Any]])

    def set(self, key: K, time_ns: int | None) -> None:
        """Make `key` due at `time_ns`; None means never."""
        before = self.times.get(key)
        if before == time_ns:
            return
        if before is not None:
            del self.times[key], self.order[bisect_left(self.order, (before, key))]
        if time_ns is not None:
            self.times[key] = time_ns
            insort(self.order, (time_ns, key))

    def first(self) -> int | None:
        """The earliest time; None without one."""
        return self.order[0][0] if self.order else None

    def due(self, now_ns: int) -> K | None:
        """The key whose time came first, if it has come."""
        return self.order[0][1] if self.order and self.order[0][0] <= now_ns else None

    def all_due(self, now_ns: int) -> Iterator[K]:
        """Every key whose time has come, by time. They may be set while they are iterated over."""
        while (key := self.due(now_ns)) is not None:
            del self.times[key], self.order[0]
            yield key


@dataclass(slots=True)
class Agenda:
    """The lists.

    Attributes:
        deadlines: open jobs that expire at their deadline.
        stops: jobs whose open leases become void.
        chunks: (job, first row) of chunks that wait before their next try.
        kept: terminal jobs that are not deleted, by their end; so is `unswept`, those with a first sweep to come.
        cleanups: terminal jobs with another task to come, by the time from which it may run.
    """

    deadlines: DueTimes[str] = field(default_factory=DueTimes[str])
    stops: DueTimes[str] = field(default_factory=DueTimes[str])
    chunks: DueTimes[tuple[str, int]] = field(default_factory=DueTimes[tuple[str, int]])

    kept: DueTimes[str] = field(default_factory=DueTimes[str])
    unswept: DueTimes[str] = field(default_factory=DueTimes[str])
    cleanups: DueTimes[str] = field(default_factory=DueTimes[str])

    def put_cleanup(self, job: str, cleanup: Cleanup | None) -> None:
        """Bring what follows from a terminal job's record up to date; None forgets it."""
        kept, unswept, again = _cleanup_times(cleanup) if cleanup else (None, None, None)
        self.kept.set(job, kept)
        self.unswept.set(job, unswept)
        self.cleanups.set(job, again)

    def put(self, job: Job) -> None:
        """Bring what follows from the job's record up to date."""
        expires = job.open and job.terms.on_deadline == job_pb2.DEADLINE_POLICY_EXPIRE
        self.deadlines.set(job.name, job.deadline_ns if expires else None)
        self.stops.set(job.name, job.stopping.until_ns if job.stopping else None)


def _cleanup_times(cleanup: Cleanup) -> tuple[int | None, int | None, int | None]:
    """Its time in `kept`, `unswept` and `cleanups`."""
    if cleanup.purge_ns:
        return None, None, None if cleanup.fence else max(cleanup.purge_ns, cleanup.ready_at_ns)
    if cleanup.swept or cleanup.fence:
        return cleanup.end_ns, None, None
    if cleanup.ready_at_ns:
        return cleanup.end_ns, None, cleanup.ready_at_ns
    return cleanup.end_ns, cleanup.end_ns, None
