"""What the scheduler knows of one thing each. Records never change; `dataclasses.replace` makes their successors."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.v1 import job_pb2, job_service_pb2

JobState: TypeAlias = "job_pb2.JobState.ValueType"
CompletionKind: TypeAlias = "job_service_pb2.CompletionKind.ValueType"
ServiceClass: TypeAlias = "job_pb2.ServiceClass.ValueType"
DeadlinePolicy: TypeAlias = "job_pb2.DeadlinePolicy.ValueType"
SlaState: TypeAlias = "job_pb2.SlaState.ValueType"
EqualAnswers: TypeAlias = "job_pb2.EqualAnswers.ValueType"
ExecutionMode: TypeAlias = "job_pb2.ExecutionMode.ValueType"

TERMINAL_STATES: frozenset[JobState] = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_EXPIRED,
    }
)


UNCOUNTED = frozenset({ledger_pb2.REQUEUE_REASON_RELEASED, ledger_pb2.REQUEUE_REASON_OPERATOR})
"""A lease that ends so is no failed attempt."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """How a lease ends undone. `fatal_reason` says that another attempt cannot help."""

    reason: "ledger_pb2.RequeueReason.ValueType"
    message: str = ""
    fatal_reason: str = ""


class LeaseKind(Enum):
    """What a lease is for."""

    CHUNK = "chunk"
    FINALISE = "finalise"
    CLEANUP = "cleanup"


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over rows: how they ended and the tokens they took."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.succeeded + self.failed + self.cancelled + self.expired

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
            self.expired + other.expired,
            self.prompt_tokens + other.prompt_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A contiguous run of durable input rows, written by the writer of `writer_epoch`."""

    key: str
    start: int
    count: int
    sha256: bytes
    size_bytes: int
    writer_epoch: int

    @property
    def end(self) -> int:
        """First row behind the segment."""
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class Part:
    """Result rows of one chunk that became visible together.

    Attributes:
        rows: a set within the chunk.
        engine_record: digest of the record of the engine that answered; empty where none did.
        equal_answers: what that engine promises.
    """

    key: str
    chunk_start: int
    chunk_rows: int
    fence: int
    part_number: int
    rows: int
    sha256: bytes
    tally: Tally
    first_result_offset: int
    row_count: int
    engine_record: bytes = b""
    equal_answers: EqualAnswers = job_pb2.EQUAL_ANSWERS_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row range that has been cut and still misses results.

    Attributes:
        done: set of the rows that have a result.
        failures: leases that expired or failed; a lease given back in order does not count, and neither does a death.
        fence: the live lease; 0 while the chunk waits.
        ready_at_ns: the chunk is not leased before.
        suspect: an engine died with it inside: it runs alone.
        deaths: engines that died with it inside.
        deaths_alone: those of them in which nothing else was, since the chunk has had this size.
        condemned: set of the rows that are not to be run again.
    """

    start: int
    rows: int
    done: int = 0
    failures: int = 0
    fence: int = 0
    ready_at_ns: int = 0
    suspect: bool = False
    deaths: int = 0
    deaths_alone: int = 0
    condemned: int = 0

    @property
    def attempt(self) -> int:
        """Number of its next lease, not counting those that were given back."""
        return self.failures + self.deaths + 1

    @property
    def missing(self) -> int:
        """Number of rows without a result."""
        return self.rows - self.done.bit_count()

    @property
    def range(self) -> range:
        """Its row indices."""
        return range(self.start, self.start + self.rows)


@dataclass(frozen=True, slots=True)
class Lease:
    """Work at a worker. `chunk_start` is meaningless for a FINALISE lease.

    Attributes:
        charged: virtual tokens that the tenant's account bears for rows without a result.
        price: virtual tokens for a thousand actual ones.
        alone: a suspect, with nothing beside it in the engine.
        purge: a CLEANUP lease that removes the job's whole folder.
    """

    fence: int
    kind: LeaseKind
    job: str
    worker_id: str
    attempt: int
    chunk_start: int = 0
    charged: int = 0
    price: int = 1000
    alone: bool = False
    purge: bool = False


@dataclass(frozen=True, slots=True)
class ModelFlags:
    """What an operator set: a drained model gets no new lease, a pinned one stays loaded."""

    drained: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Seal:
    """What fixed a job's rows."""

    row_count: int
    input_data_version: bytes
    input_manifest_key: str
    dataset: str
    sequence: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job heads for its terminal state.

    Attributes:
        outcome: the terminal state.
        sequence: ledger position of the decision.
        failures: closing leases that expired or failed.
        fence: the live closing lease; 0 while the task waits.
        ready_at_ns: the closing task is not leased before.
    """

    outcome: JobState
    reason: str
    message: str
    sequence: int
    failures: int = 0
    fence: int = 0
    ready_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a job takes no leases for now: an UPPER_SNAKE reason, and the same in words."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """A job that takes no leases any more, while its open ones live until `until_ns`."""

    outcome: JobState
    until_ns: int


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What is left to do about the files of a terminal job.

    Attributes:
        end_ns: when the job ended.
        swept: files that the ledger does not name are gone.
        purge_ns: from then on all files go; 0 unless the job is deleted.
        failures: leases of the task that expired or failed.
        fence: the live lease; 0 while the task waits.
        ready_at_ns: the task is not leased before.
    """

    end_ns: int
    swept: bool = False
    purge_ns: int = 0
    failures: int = 0
    fence: int = 0
    ready_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """When results came: enough for the rate at which rows finish."""

    first_ns: int
    first_rows: int
    last_ns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job's owner asks of the service, as it stands after updates."""

    deadline_ns: int
    service_class: ServiceClass = job_pb2.SERVICE_CLASS_STANDARD
    on_deadline: DeadlinePolicy = job_pb2.DEADLINE_POLICY_RUN_LATE
    raise_class: bool = False
    more_parallelism: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether the job will hold its deadline; the times are 0 while they cannot be told."""

    state: SlaState = job_pb2.SLA_STATE_UNSPECIFIED
    eta_p50_ns: int = 0
    eta_p90_ns: int = 0


@dataclass(frozen=True)
class Job:
    """A job, without its segments, chunks and parts, which `State` keeps beside it.

    Attributes:
        spec: what the client fixed; never modified.
        terms: deadline, class and policies in force.
        outlook: whether the deadline will hold.
        raised_class: the class after escalation; UNSPECIFIED without one.
        parallelism: factor on the cap of the job's leases, above 1 after escalation.
        text_bytes: sum over the input segments; so are `max_output_tokens` and `shared_only_rows`.
        mode: how rows reach an engine; UNSPECIFIED where the service is to choose at the seal.
        row_tokens: expected tokens of a row without a result, and at the 90th percentile; 0 until sealed.
        promised_ns: when the first ETA was made, and what it was, at the 50th and 90th percentile; 0 until then.
        admitted_at_risk: sealed although the deadline may not hold.
        pinned_digest: weights (hex) that have to answer; empty means any.
        revision: ledger sequence of the last event about the job.
        end: durable end of the rows.
        frontier: Merkle peaks over the rows' digests.
        next_cut: first row that belongs to no chunk yet.
        leased_rows: rows without a result in leased chunks.
        tally: sums over the rows that have a result.
        first_fence: the job's first lease; 0 before it.
        pause: why it is paused; None unless it is.
        stopping: how it is being stopped; None before, and once `ending` says so.
        condemned_rows: rows that are not to be run again because they killed engines.
        deleted: hidden from everybody.
        breaker_off: its owner resumed it although all its rows had failed.
        engine_record: digest of the record of the engine that answered first; empty before.
        equal_answers: what the engines that answered promise together.
    """

    spec: records_pb2.JobSpec
    name: str
    tenant: str
    model: str
    terms: Terms
    state: JobState
    revision: int
    create_ns: int
    writer_epoch: int = 0
    end: int = 0
    frontier: tuple[bytes, ...] = ()
    seal: Seal | None = None
    next_cut: int = 0
    leased_rows: int = 0
    tally: Tally = field(default_factory=Tally)
    pace: Pace | None = None
    ending: Ending | None = None
    first_fence: int = 0
    start_ns: int = 0
    end_ns: int = 0
    model_digest: str = ""
    engine_build: str = ""
    output_data_version: bytes = b""
    output_manifest_key: str = ""
    outlook: Outlook = field(default_factory=Outlook)
    raised_class: ServiceClass = job_pb2.SERVICE_CLASS_UNSPECIFIED
    parallelism: int = 1
    text_bytes: int = 0
    max_output_tokens: int = 0
    shared_only_rows: int = 0
    mode: ExecutionMode = job_pb2.EXECUTION_MODE_UNSPECIFIED
    row_tokens: int = 0
    row_tokens_p90: int = 0
    promised_ns: int = 0
    promised_p50_ns: int = 0
    promised_p90_ns: int = 0
    admitted_at_risk: bool = False
    pinned_digest: str = ""
    pause: Pause | None = None
    stopping: Stopping | None = None
    condemned_rows: int = 0
    deleted: bool = False
    breaker_off: bool = False
    engine_record: bytes = b""
    equal_answers: EqualAnswers = job_pb2.EQUAL_ANSWERS_UNSPECIFIED

    @property
    def deadline_ns(self) -> int:
        """The deadline in force."""
        return self.terms.deadline_ns

    @property
    def service_class(self) -> ServiceClass:
        """The class that the policy sees."""
        return self.raised_class or self.terms.service_class

    @property
    def terminal(self) -> bool:
        """Whether nothing about the job changes any more."""
        return self.state in TERMINAL_STATES

    @property
    def open(self) -> bool:
        """Whether nothing has been decided about the job's end."""
        return self.ending is None and self.stopping is None

    @property
    def heading_for(self) -> "JobState | None":
        """The terminal state that the job reached or heads for; None while it is open."""
        if self.ending is not None:
            return self.ending.outcome
        return self.stopping.outcome if self.stopping is not None else None

    @property
    def receiving(self) -> bool:
        """Whether rows may be appended."""
        return self.state == job_pb2.JOB_STATE_RECEIVING

    def expect_seal(self) -> Seal:
        """The seal of a job that must have one."""
        if self.seal is None:
            raise ValueError(f"job {self.name} is not sealed")
        return self.seal

    def expect_ending(self) -> Ending:
        """The ending of a job that must have one."""
        if self.ending is None:
            raise ValueError(f"job {self.name} is not ending")
        return self.ending

    @property
    def results(self) -> int:
        """Number of rows that have a result."""
        return self.tally.rows

    @property
    def missing(self) -> int:
        """Number of rows without a result."""
        return self.end - self.results


@dataclass(frozen=True, slots=True, order=True)
class Completion:
    """One entry of a tenant's completion feed."""

    sequence: int
    kind: CompletionKind
    job: str
