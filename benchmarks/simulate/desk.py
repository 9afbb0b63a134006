"""The core as its shell drives it: commands in, events numbered, timed and folded; nothing is stored."""

from dataclasses import replace

from benchmarks import cycle_messages
from benchmarks.simulate.workload import SimJob
from services.scheduler.core import admission, endings, jobs, leasing, parts, views, writers
from services.scheduler.core.admission import Admission
from services.scheduler.core.capacity import Capacity
from services.scheduler.core.codec import tally_message
from services.scheduler.core.limits import Limits
from services.scheduler.core.offers import Offer, Policy, Tightness
from services.scheduler.core.prospects import Backlog
from services.scheduler.core.records import Job, Lease, LeaseKind
from services.scheduler.core.state import State
from services.scheduler.core.tightness import tightness
from services.scheduler.core.times import SECOND, to_timestamp
from services.scheduler.engine import Turn
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as pb

BYTES_PER_TOKEN = 4
OUTPUT_LIMIT = 1024
"""Most tokens that each row may generate: what a client says, not what comes."""

EPOCH = 1_700_000_000
"""Unix seconds at which virtual time starts."""


class Desk:
    """A state and its virtual clock.

    Attributes:
        now: seconds since the start.
        oracle: estimates are the truth.
    """

    def __init__(self, policy: Policy, limits: Limits, oracle: bool = False) -> None:
        self.state = State()
        self.now = 0.0
        self.oracle = oracle
        self._policy = policy
        self._limits = limits
        self._jobs: dict[str, SimJob] = {}

    @property
    def now_ns(self) -> int:
        """Virtual wall time."""
        return round((EPOCH + self.now) * SECOND)

    def _turn(self) -> Turn:
        return Turn(self.state, 1, self.now_ns)

    def sim_job(self, name: str) -> SimJob:
        """The job behind a name."""
        return self._jobs[name]

    def submit(self, job: SimJob, capacity: Capacity | None = None) -> bool:
        """Create, fill and seal; False where admission (by this capacity) refuses the deadline."""
        turn = self._turn()
        spec = _spec(job)
        self._jobs[spec.name] = job
        turn.record(jobs.create_job(self.state, spec, self.now_ns))
        turn.record(writers.open_writer(self.state, spec.name))
        turn.record(writers.commit_segment(self.state, _segment(job, spec.name)))
        try:
            turn.record(
                jobs.seal_job(
                    self.state,
                    cycle_messages.seal(spec.name, job.rows),
                    lambda sealing: self._admit(sealing, capacity),
                )
            )
        except TidemillError as refusal:
            if refusal.reason is not Reason.DEADLINE_INFEASIBLE:
                raise
            # The client may lower its sights and seal again; here it goes away.
            return False
        self._reveal(spec.name)
        return True

    def _admit(self, job: Job, capacity: Capacity | None) -> Admission:
        if capacity is None:
            return Admission()
        return admission.admit(Backlog(self.state, capacity, self._limits, self.now_ns), job)

    def tightness(self, capacity: Capacity) -> Tightness:
        """Until when promised work leaves no room; see `tightness`."""
        return tightness(Backlog(self.state, capacity, self._limits, self.now_ns))

    def _reveal(self, name: str) -> None:
        """Under the oracle, put what the rows without a result will really take in place of the estimate."""
        job, truth = self.state.jobs[name], self._jobs[name]
        missing = job.missing
        if self.oracle and missing:
            left = truth.tokens(0, truth.rows) - job.tally.prompt_tokens - job.tally.output_tokens
            mean = max(1, -(-left // missing))
            self.state.put(replace(job, row_tokens=mean, row_tokens_p90=mean))

    def lease(self, offer: Offer) -> Lease | None:
        """The chunk that the policy gives to this worker. Closing tasks take no time and are done on the way."""
        while True:
            turn = self._turn()
            events = turn.record(leasing.lease_next(self.state, offer, self._limits, self.now_ns, self._policy))
            if not events:
                return None
            lease = self.state.leases[events[0].sequence]
            if lease.kind is LeaseKind.CHUNK:
                return lease
            turn.record(
                endings.finish_job(self.state, _finish(views.lease_message(self.state, lease, 15.0), self.state))
            )

    def tokens(self, lease: Lease) -> int:
        """What the rows of a leased chunk really take."""
        chunk = self.state.chunks[lease.job][lease.chunk_start]
        return self._jobs[lease.job].tokens(chunk.start, chunk.start + chunk.rows)

    def commit(self, lease: Lease, busy_seconds: float) -> bool:
        """Commit the whole chunk; True when it was the job's last."""
        chunk = self.state.chunks[lease.job][lease.chunk_start]
        request = _part(lease, chunk.rows, self._jobs[lease.job], busy_seconds)
        self._turn().record(parts.commit_part(self.state, request))
        self._reveal(lease.job)
        return self.state.jobs[lease.job].ending is not None


def _spec(job: SimJob) -> records_pb2.JobSpec:
    spec = cycle_messages.spec(job.tenant.name, job.number, job.model.name)
    spec.accept_at_risk = False
    spec.complete_by_time.CopyFrom(to_timestamp(round((EPOCH + job.deadline) * SECOND)))
    return spec


def _segment(job: SimJob, name: str) -> pb.CommitSegmentRequest:
    request = cycle_messages.segment(name, 1, job.rows)
    request.segment.text_bytes = BYTES_PER_TOKEN * int(job.prompts[-1])
    request.segment.max_output_tokens = OUTPUT_LIMIT * job.rows
    peak = request.merkle_frontier[0]
    request.merkle_frontier[:] = [peak] * job.rows.bit_count()
    return request


def _part(lease: Lease, rows: int, job: SimJob, busy_seconds: float) -> pb.CommitPartRequest:
    start, end = lease.chunk_start, lease.chunk_start + rows
    request = cycle_messages.part(
        pb.Lease(spec=records_pb2.JobSpec(name=lease.job), fence=lease.fence, chunk_start=start, chunk_rows=rows)
    )
    request.part.tally.prompt_tokens = int(job.prompts[end] - job.prompts[start])
    request.part.tally.output_tokens = int(job.outputs[end] - job.outputs[start])
    request.busy_seconds = busy_seconds
    return request


def _finish(lease: pb.Lease, state: State) -> pb.FinishJobRequest:
    request = cycle_messages.finish(lease)
    request.tally.CopyFrom(tally_message(state.jobs[lease.spec.name].tally))
    return request
