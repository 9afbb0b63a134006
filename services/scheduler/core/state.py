"""Everything the scheduler knows, as a fold of the ledger.

The containers of `State` are changed in place, by `apply` alone: copying them for each event would make a replay
quadratic. The records inside are frozen. No decision scans all jobs; whatever a decision needs is indexed here, and
the tests compare every index with a recount.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace

from services.scheduler.core.agenda import Agenda
from services.scheduler.core.demand import Demand
from services.scheduler.core.fairness import Accounts, priced, settled
from services.scheduler.core.holdings import Holdings, Spending
from services.scheduler.core.indices import Counts, InFlight, ReadyJobs
from services.scheduler.core.paces import ModelPace
from services.scheduler.core.records import (
    Chunk,
    Cleanup,
    Job,
    JobState,
    Lease,
    LeaseKind,
    ModelFlags,
    Part,
    Segment,
)
from services.scheduler.core.slack import latest_start_ns, window_ns
from tidemill.internal.v1 import ledger_pb2

PartKey = tuple[int, int]
"""(fence, part number)."""

Closing = tuple[int, int, str]
"""(not before, ledger sequence of the ending, job name) of a closing task that waits for a worker."""

JobsKey = tuple[str, str, JobState]
"""(tenant, model, state)."""


_UNKNOWN = ModelPace()


@dataclass(slots=True)
class State:
    """The jobs and the indices over them.

    Attributes:
        sequence: last event applied.
        time_ns: time of that event, or the later one to which `pass_time` let the clock go on.
        jobs: by name.
        requests: job name by (tenant, request id).
        names: job names by (tenant, state), rising.
        counts: jobs by (tenant, model, state).
        segments: input segments by job, by start.
        chunks: chunks that miss results, by job and start; before a job ends early also what was never cut.
        waiting: starts of requeued chunks that may be leased, by job, rising.
        parts: result parts by job in commit order.
        part_of: every part ever committed.
        leases: live leases by fence.
        leases_of: fences of the live leases by job.
        ready: sealed jobs with rows to lease.
        closing: closing tasks that wait, by the time from which they may run.
        receiving: create time of unsealed jobs, oldest first.
        in_flight: leased chunks as the caps see them.
        paces: what commits taught, by model.
        demand: tokens that open jobs still need, by deadline.
        holdings: what each tenant holds, and `spending` what it used today.
        agenda: what becomes due by itself.
        accounts: what each tenant has had.
        models: what an operator set, by model; without those where nothing is set.
        busy: leased chunks by worker.
        ended: end time and name of the terminal jobs, deleted ones too, rising: in this order they leave memory.
        cleanups: what is left to do about the files of terminal jobs, by job; in the archive or not.
        cleanups_leased: those at workers.
        archivals: how many jobs have left memory.
        fence_base: what fences are above the sequence of the event that gives them out.
    """

    sequence: int = 0
    time_ns: int = 0
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    requests: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    names: dict[tuple[str, JobState], list[str]] = field(default_factory=dict[tuple[str, JobState], list[str]])
    counts: Counts[JobsKey] = field(default_factory=Counts[JobsKey])
    segments: dict[str, list[Segment]] = field(default_factory=dict[str, list[Segment]])
    chunks: dict[str, dict[int, Chunk]] = field(default_factory=dict[str, dict[int, Chunk]])
    waiting: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    parts: dict[str, list[Part]] = field(default_factory=dict[str, list[Part]])
    part_of: dict[PartKey, tuple[str, Part]] = field(default_factory=dict[PartKey, tuple[str, Part]])
    leases: dict[int, Lease] = field(default_factory=dict[int, Lease])
    leases_of: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    ready: ReadyJobs = field(default_factory=ReadyJobs)
    closing: list[Closing] = field(default_factory=list[Closing])
    receiving: dict[str, int] = field(default_factory=dict[str, int])
    in_flight: InFlight = field(default_factory=InFlight)
    paces: dict[str, ModelPace] = field(default_factory=dict[str, ModelPace])
    demand: Demand = field(default_factory=Demand)
    holdings: Holdings = field(default_factory=Holdings)
    spending: Spending = field(default_factory=Spending)
    agenda: Agenda = field(default_factory=Agenda)
    accounts: Accounts = field(default_factory=Accounts)
    models: dict[str, ModelFlags] = field(default_factory=dict[str, ModelFlags])
    busy: Counts[str] = field(default_factory=Counts[str])
    ended: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    cleanups: dict[str, Cleanup] = field(default_factory=dict[str, Cleanup])
    cleanups_leased: int = 0
    archivals: int = 0
    fence_base: int = 0

    def fence_of(self, event: ledger_pb2.LedgerEvent) -> int:
        """Fence of the lease that the event gives out."""
        return event.sequence + self.fence_base

    def pace(self, model: str) -> ModelPace:
        """What commits taught about the model; nothing yet where it is new."""
        return self.paces.get(model, _UNKNOWN)

    def put(self, job: Job) -> None:
        """Store `job` in place of its predecessor and bring the indices by state up to date."""
        before = self.jobs.get(job.name)
        self.jobs[job.name] = job
        if before is None or before.state != job.state or before.deleted != job.deleted:
            self._move(before, job)
        if job.terminal and (before is None or not before.terminal):
            insort(self.ended, (job.end_ns, job.name))
        self.demand.set(job)
        self.holdings.move(before, job)
        self.agenda.put(job)
        self._index_work(job)

    def _index_work(self, job: Job) -> None:
        if self._leasable(job):
            start = latest_start_ns(job, self.pace(job.model), len(self.busy))
            self.ready.set(job, start, window_ns(job))
        else:
            self.ready.remove(job)
        self.accounts.set_waiting(job.tenant, job.model, bool(self.ready.tenant_jobs(job.model, job.tenant)))

    def refresh_starts(self, model: str, limit: int) -> None:
        """Compute the latest starts anew that rest on the oldest pace, of `limit` jobs."""
        for name in self.ready.oldest(model, limit):
            job = self.jobs[name]
            self._index_work(job)
            self.ready.touch(job)

    def _move(self, before: Job | None, job: Job) -> None:
        if before is not None:
            self._remove(before)
        if job.deleted:
            return
        insort(self.names.setdefault((job.tenant, job.state), []), job.name)
        self.counts.shift((job.tenant, job.model, job.state), 1)

    def _remove(self, job: Job) -> None:
        if job.deleted:
            return
        names = self.names[job.tenant, job.state]
        del names[bisect_left(names, job.name)]
        if not names:
            del self.names[job.tenant, job.state]
        self.counts.shift((job.tenant, job.model, job.state), -1)

    def forget(self, name: str) -> None:
        """Drop a terminal job and everything about it."""
        job = self.jobs.pop(name)
        self._remove(job)
        self._leave_memory_order(job)
        if self.requests.get((job.tenant, job.spec.request_id)) == name:
            del self.requests[job.tenant, job.spec.request_id]
        self.segments.pop(name, None)
        self.chunks.pop(name, None)
        for part in self.parts.pop(name, ()):
            del self.part_of[part.fence, part.part_number]

    def put_cleanup(self, job: str, cleanup: Cleanup | None) -> None:
        """Store what is left to do about a terminal job's files; None forgets it."""
        before = self.cleanups.pop(job, None)
        self.cleanups_leased -= before is not None and before.fence > 0
        if cleanup is not None:
            self.cleanups[job] = cleanup
            self.cleanups_leased += cleanup.fence > 0
        self.agenda.put_cleanup(job, cleanup)

    def hide(self, name: str) -> None:
        """Let nobody see a terminal job any more, if it is in memory; its request id is free again."""
        job = self.jobs.get(name)
        if job is None:
            return
        if self.requests.get((job.tenant, job.spec.request_id)) == name:
            del self.requests[job.tenant, job.spec.request_id]
        self.put(replace(job, deleted=True, revision=self.sequence))

    def hidden(self, name: str) -> bool:
        """Whether the job, in memory or in the archive, was deleted."""
        cleanup = self.cleanups.get(name)
        return cleanup is not None and cleanup.purge_ns > 0

    def _leave_memory_order(self, job: Job) -> None:
        place = bisect_left(self.ended, (job.end_ns, job.name))
        if self.ended[place : place + 1] == [(job.end_ns, job.name)]:
            del self.ended[place]

    def _leasable(self, job: Job) -> bool:
        if job.seal is None or not job.open or job.pause is not None:
            return False
        return job.next_cut < job.seal.row_count or bool(self.waiting.get(job.name))

    def pass_time(self, now_ns: int) -> None:
        """Let the clock go on: chunks whose wait is over may be leased. Later events have no earlier time."""
        self.time_ns = max(self.time_ns, now_ns)
        for job, start in self.agenda.chunks.all_due(self.time_ns):
            insort(self.waiting.setdefault(job, []), start)
            self.put(self.jobs[job])

    def put_back(self, job: str, chunk: Chunk) -> None:
        """Let a chunk wait until it may be leased; `put` the job afterwards."""
        if chunk.ready_at_ns > self.time_ns:
            self.agenda.chunks.set((job, chunk.start), chunk.ready_at_ns)
        else:
            insort(self.waiting.setdefault(job, []), chunk.start)

    def forget_waiting(self, job: str, chunk: Chunk) -> None:
        """Take a chunk from where it waits; `put` the job afterwards."""
        self.agenda.chunks.set((job, chunk.start), None)
        waiting = self.waiting.get(job, [])
        position = bisect_left(waiting, chunk.start)
        if position < len(waiting) and waiting[position] == chunk.start:
            del waiting[position]
            if not waiting:
                del self.waiting[job]

    def add_lease(self, lease: Lease) -> None:
        """Make `lease` live."""
        self.leases[lease.fence] = lease
        self.leases_of.setdefault(lease.job, set()).add(lease.fence)
        if lease.charged:
            self.accounts.charge(self.jobs[lease.job].tenant, lease.charged)
        if lease.kind is LeaseKind.CHUNK:
            self.busy.shift(lease.worker_id, 1)

    def settle(self, fence: int, tokens: int, rows: int, missing: int) -> None:
        """Put the actual `tokens` of `rows` rows in place of their share of the charge for the `missing` ones."""
        lease = self.leases[fence]
        share = settled(lease, rows, missing)
        self.leases[fence] = replace(lease, charged=lease.charged - share)
        self.accounts.charge(self.jobs[lease.job].tenant, priced(tokens, lease.price) - share)

    def drop_lease(self, fence: int) -> Lease:
        """End a live lease; what it was charged for rows without a result is refunded."""
        lease = self.leases.pop(fence)
        if lease.charged:
            self.accounts.charge(self.jobs[lease.job].tenant, -lease.charged)
        if lease.kind is LeaseKind.CHUNK:
            self.busy.shift(lease.worker_id, -1)
        fences = self.leases_of[lease.job]
        fences.remove(fence)
        if not fences:
            del self.leases_of[lease.job]
        return lease
