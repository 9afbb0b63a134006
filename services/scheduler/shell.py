"""What the RPC handlers share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from services.scheduler.archive import Archive
from services.scheduler.clock import Clock
from services.scheduler.core import views
from services.scheduler.core.checks import find_job, require
from services.scheduler.core.limits import Limits
from services.scheduler.core.quotas import Quotas
from services.scheduler.core.records import Job
from services.scheduler.engine import Engine, Events, Turn
from services.scheduler.lease_clock import LeaseClock
from services.scheduler.outlooks import Outlooks
from services.scheduler.polling import LeasePoll
from services.scheduler.signals import Changes
from services.scheduler.watching import JobWatch
from services.scheduler.workers import Worker, Workers
from tidemill.internal.v1 import records_pb2

T = TypeVar("T")


@dataclass(frozen=True)
class Shell:
    """The parts around the engine."""

    engine: Engine
    archive: Archive
    workers: Workers
    leases: LeaseClock
    polls: LeasePoll
    watches: JobWatch
    changes: Changes
    clock: Clock
    limits: Limits
    outlooks: Outlooks
    quotas: Quotas

    def record(self, job: Job) -> records_pb2.JobRecord:
        """The job as gateways see it, now."""
        return views.job_record(job, loading=self.workers.is_loading(job.model, self.clock.monotonic()))

    async def read_job(self, name: str) -> records_pb2.JobRecord:
        """The durable record of a job, or JOB_NOT_FOUND."""
        return await self.archive.execute(name, lambda turn: self.record(find_job(turn.state, name)))

    async def change_job(self, name: str, decide: Callable[[Turn], Events]) -> records_pb2.JobRecord:
        """Decide on a job and return its record once that is durable."""

        def step(turn: Turn) -> records_pb2.JobRecord:
            turn.record(decide(turn))
            return self.record(find_job(turn.state, name))

        return await self.archive.execute(name, step)

    def traceparent(self, name: str) -> str:
        """Where a job's trace began; empty for an unknown or untraced one."""
        state = self.engine.peek()
        job = state.jobs.get(name) if state is not None else None
        return job.spec.traceparent if job is not None else ""

    def report(self, worker_id: str, models: "list[records_pb2.ModelReport]") -> Worker:
        """Note a worker's report, and tell the watchers of jobs whose phase it may change."""
        worker, changed = self.workers.report(worker_id, models, self.clock.monotonic())
        state = self.engine.peek()
        if changed and state is not None:
            watched = [name for name in self.changes.watched() if name in state.jobs]
            self.changes.fire(name for name in watched if state.jobs[name].model in changed)
        return worker


def page_limit(value: int, field: str, most: int) -> int:
    """A checked page size."""
    require(1 <= value <= most, field, f"must be 1 to {most}, not {value}")
    return value
