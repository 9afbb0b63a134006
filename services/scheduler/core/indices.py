"""Indices that make every decision independent of the number of jobs."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import TypeVar

from services.scheduler.core.records import Job

ReadyKey = tuple[int, int, str]
"""(deadline, ledger sequence of the seal, job name): the order in which jobs are served."""


K = TypeVar("K", bound=Hashable)


class Counts(Counter[K]):
    """Counter that forgets keys at zero, so that it equals a recount and does not grow."""

    def shift(self, key: K, by: int) -> None:
        """Add `by` to the count of `key`."""
        self[key] += by
        if not self[key]:
            del self[key]


class ReadyJobs:
    """Jobs with rows to lease, by model and tenant, each in serving order."""

    def __init__(self) -> None:
        self._lists: dict[str, dict[str, list[ReadyKey]]] = {}
        self._keys: dict[str, ReadyKey] = {}

    def __contains__(self, job: str) -> bool:
        return job in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def set(self, job: Job, ready: bool) -> None:
        """Make `job` present, if it is sealed, at its deadline; or absent."""
        key = (job.deadline_ns, job.expect_seal().sequence, job.name) if ready else None
        if key == self._keys.get(job.name):
            return
        if job.name in self._keys:
            self._discard(job)
        if key is not None:
            self._keys[job.name] = key
            insort(self._lists.setdefault(job.model, {}).setdefault(job.tenant, []), key)

    def _discard(self, job: Job) -> None:
        tenants = self._lists[job.model]
        keys = tenants[job.tenant]
        del keys[bisect_left(keys, self._keys.pop(job.name))]
        if not keys:
            del tenants[job.tenant]
        if not tenants:
            del self._lists[job.model]

    def tenants(self, model: str) -> Iterator[tuple[str, list[ReadyKey]]]:
        """Tenants with ready jobs of `model`, and those jobs in serving order."""
        yield from self._lists.get(model, {}).items()


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
