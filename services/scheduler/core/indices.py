"""Indices that make every decision independent of the number of jobs."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable
from itertools import islice
from typing import TypeVar

from services.scheduler.core.records import Job

ReadyKey = tuple[int, int, str]
"""(deadline, ledger sequence of the seal, job name): the order in which jobs are served."""


K = TypeVar("K", bound=Hashable)


class Counts(Counter[K]):
    """Counter that forgets keys at zero, so that it equals a recount and does not grow."""

    def shift(self, key: K, by: int) -> None:
        """Add `by` to the count of `key`."""
        count = self.get(key, 0) + by
        if count:
            self[key] = count
        else:
            self.pop(key, None)


StartKey = tuple[int, int, str]
"""(latest start, window, job name): the order in which jobs run out of slack."""


class ReadyJobs:
    """Jobs with rows to lease: by model and tenant in serving order, and by model in the order of their latest starts.

    A latest start rests on the model's pace when it was computed. It is computed anew whenever the job changes, and by
    `oldest` in turn, so that it is a good guide even to jobs that only wait.
    """

    def __init__(self) -> None:
        self._lists: dict[str, dict[str, list[ReadyKey]]] = {}
        self._keys: dict[str, ReadyKey] = {}
        self._starts: dict[str, list[StartKey]] = {}
        self._start_of: dict[str, StartKey] = {}
        self._by_age: dict[str, dict[str, None]] = {}

    def __contains__(self, job: str) -> bool:
        return job in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def remove(self, job: Job) -> None:
        """Make `job` absent."""
        if job.name in self._keys:
            self._discard(job)

    def set(self, job: Job, latest_start_ns: int, window_ns: int) -> None:
        """Make `job`, which is sealed, present, with these keys."""
        key = (job.deadline_ns, job.expect_seal().sequence, job.name)
        start = (latest_start_ns, window_ns, job.name)
        if self._keys.get(job.name) == key and self._start_of[job.name] == start:
            return
        if job.name in self._keys:
            self._discard(job)
        self._keys[job.name] = key
        insort(self._lists.setdefault(job.model, {}).setdefault(job.tenant, []), key)
        self._start_of[job.name] = start
        insort(self._starts.setdefault(job.model, []), start)
        self._by_age.setdefault(job.model, {})[job.name] = None

    def _discard(self, job: Job) -> None:
        tenants = self._lists[job.model]
        keys = tenants[job.tenant]
        del keys[bisect_left(keys, self._keys.pop(job.name))]
        if not keys:
            del tenants[job.tenant]
        if not tenants:
            del self._lists[job.model]
        starts = self._starts[job.model]
        del starts[bisect_left(starts, self._start_of.pop(job.name))]
        del self._by_age[job.model][job.name]
        if not starts:
            del self._starts[job.model]
            del self._by_age[job.model]

    def tenant_jobs(self, model: str, tenant: str) -> list[ReadyKey]:
        """The tenant's ready jobs of `model` in serving order; not to be changed."""
        return self._lists.get(model, {}).get(tenant, [])

    def starting_from(self, model: str, time_ns: int, limit: int, back: int = 0) -> list[StartKey]:
        """At most `limit` ready jobs of `model` that need not have begun before `time_ns`, the most pressing first.

        In front of them come the last `back` of those that should have: latest starts are guesses.
        """
        starts = self._starts.get(model, [])
        first = bisect_left(starts, (time_ns,))
        return starts[max(0, first - back) : first + limit]

    def oldest(self, model: str, limit: int) -> list[str]:
        """At most `limit` ready jobs of `model`: those whose latest start is the oldest guess."""
        names = self._by_age.get(model, {})
        return list(islice(names, limit))

    def touch(self, job: Job) -> None:
        """Note that the job's latest start was computed just now."""
        names = self._by_age[job.model]
        del names[job.name]
        names[job.name] = None


class InFlight:
    """Leased chunks in total and by tenant, model and job: what the caps are compared with."""

    def __init__(self) -> None:
        self.total = 0
        self.by_tenant = Counts[str]()
        self.by_model = Counts[str]()
        self.by_job = Counts[str]()

    def shift(self, job: Job, by: int) -> None:
        """Count `by` more chunks of `job`."""
        self.total += by
        self.by_tenant.shift(job.tenant, by)
        self.by_model.shift(job.model, by)
        self.by_job.shift(job.name, by)
