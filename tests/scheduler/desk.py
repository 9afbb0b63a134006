"""Drives the pure core by hand: commands in, events numbered, timed, folded and kept for a replay."""

from collections.abc import Sequence

from services.scheduler.core import due, endings, jobs, leasing, models, parts, views, writers
from services.scheduler.core.apply import apply
from services.scheduler.core.backoff import MAX_BACKOFF_SECONDS
from services.scheduler.core.codec import tally_message
from services.scheduler.core.leasing import EXPIRED, Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import Offer
from services.scheduler.core.records import Job
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND, to_timestamp
from services.scheduler.engine import Events
from tests.scheduler import builders
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

FAILED = ledger_pb2.REQUEUE_REASON_FAILED
RELEASED = ledger_pb2.REQUEUE_REASON_RELEASED
DIED = ledger_pb2.REQUEUE_REASON_ENGINE_DIED


class Desk:
    """A state, its history and a clock in seconds that tests set."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.state = State()
        self.history: Events = []
        self.limits = limits or Limits(chunk_rows=10)
        self.now = 1000.0

    @property
    def now_ns(self) -> int:
        return int(self.now * SECOND)

    def record(self, events: Events) -> Events:
        for event in events:
            event.sequence = self.state.sequence + 1
            event.time.CopyFrom(to_timestamp(max(self.now_ns, self.state.time_ns)))
            event.epoch = 1
            copy = ledger_pb2.LedgerEvent.FromString(event.SerializeToString())
            apply(self.state, copy)
            self.history.append(copy)
        return events

    def replayed(self) -> State:
        """The state as a fold of the history."""
        state = State()
        for event in self.history:
            apply(state, ledger_pb2.LedgerEvent.FromString(event.SerializeToString()))
        return state

    def job(self, number: int = 1, tenant: str = "acme") -> Job:
        return self.state.jobs[builders.job_name(number, tenant)]

    def view(self, number: int = 1, tenant: str = "acme") -> records_pb2.JobRecord:
        return views.job_record(self.job(number, tenant))

    def create(self, spec: records_pb2.JobSpec | None = None) -> Events:
        spec = spec or builders.spec()
        # Deadlines of these tests are only an order; what range is taken is tested by itself.
        a_day_before = (spec.complete_by_time.seconds - 86_400) * SECOND
        return self.record(jobs.create_job(self.state, spec, a_day_before))

    def open_writer(self, job: str) -> int:
        self.record(writers.open_writer(self.state, job))
        return self.state.jobs[job].writer_epoch

    def commit_segment(self, request: pb.CommitSegmentRequest) -> Events:
        return self.record(writers.commit_segment(self.state, request))

    def seal(self, request: pb.SealJobRequest) -> Events:
        return self.record(jobs.seal_job(self.state, request))

    def fill(self, spec: records_pb2.JobSpec, rows: Sequence[int]) -> str:
        """Create a job and append segments of so many rows."""
        self.create(spec)
        epoch = self.open_writer(spec.name) if rows else 0
        for count in rows:
            self.commit_segment(builders.segment(spec.name, self.state.jobs[spec.name].end, count, epoch))
        return spec.name

    def queue(self, spec: records_pb2.JobSpec | None = None, rows: Sequence[int] = (25,)) -> str:
        """Create, fill and seal a job."""
        job = self.fill(spec or builders.spec(), rows)
        self.seal(builders.seal(job, sum(rows)))
        return job

    def lease(self, count: int = 1, offer: Offer | None = None) -> list[pb.Lease]:
        """At most `count` leases, as a worker gets them."""
        leases: list[pb.Lease] = []
        self.state.pass_time(self.now_ns)
        while len(leases) < count:
            events = self.record(leasing.lease_next(self.state, offer or builders.offer(), self.limits, self.now_ns))
            if not events:
                break
            lease = self.state.leases[self.state.fence_of(events[0])]
            leases.append(views.lease_message(self.state, lease, 15.0))
        return leases

    def commit(self, request: pb.CommitPartRequest) -> Events:
        return self.record(parts.commit_part(self.state, request, self.limits))

    def answer(self, lease: pb.Lease) -> Events:
        """Commit every row of a chunk that misses a result."""
        chunk = self.state.chunks[lease.spec.name][lease.chunk_start]
        missing = {row for row in range(chunk.rows) if not chunk.done >> row & 1}
        number = sum(1 for key in self.state.part_of if key[0] == lease.fence)
        return self.commit(builders.part(lease, missing, number=number))

    def release(self, lease: pb.Lease, requeue: Requeue = EXPIRED) -> Events:
        self.state.pass_time(self.now_ns)
        return self.record(leasing.release_lease(self.state, lease.spec.name, lease.fence, requeue, self.limits))

    def change_model(self, request: pb.ChangeModelRequest, offered: bool = True) -> Events:
        return self.record(models.change_model(self.state, request, offered))

    def cancel(self, job: str) -> Events:
        return self.record(jobs.cancel_job(self.state, job))

    def cancel_now(self, job: str) -> None:
        """Cancel, and let the grace pass."""
        self.cancel(job)
        self.now += 2
        self.settle()

    def back_off(self) -> None:
        """Let the wait of whatever failed pass."""
        self.now += MAX_BACKOFF_SECONDS

    def settle(self) -> None:
        """Record everything that is due by now."""
        while events := due.due_events(self.state, self.limits, self.now_ns):
            self.record(events)

    def give_up(self, lease: pb.Lease, outcome: str = "cancelled") -> None:
        """Do a closing task's first half: give up every remainder."""
        for number, remainder in enumerate(lease.remainders):
            done = int.from_bytes(remainder.done_bitmap, "little")
            rows = {row for row in range(remainder.chunk_rows) if not done >> row & 1}
            chunk = (remainder.chunk_start, remainder.chunk_rows)
            self.commit(builders.part(lease, rows, number=number, chunk=chunk, outcome=outcome))

    def finish(self, lease: pb.Lease) -> Events:
        """Do a closing task's second half, with the ledger's own tally."""
        return self.record_finish(lease, tally_message(self.state.jobs[lease.spec.name].tally))

    def record_finish(self, lease: pb.Lease, tally: records_pb2.RowTally) -> Events:
        return self.finish_with(builders.finish(lease, tally))

    def finish_with(self, request: pb.FinishJobRequest) -> Events:
        return self.record(endings.finish_job(self.state, request))
