"""What clients and workers of a scheduler may expect, kept in plain sets, without a look at how it works.

The reference records what was acknowledged: rows by their index, leases by the fence that a worker was told.
"""

from collections import Counter
from dataclasses import dataclass, field

from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2


@dataclass
class JobHistory:
    """What one job's callers know.

    Times are in seconds: the deadline, and when it was deleted, by the wall clock, the others by the ledger's, which
    goes on where that one is set back.
    """

    name: str
    created_at: float
    deadline: int
    expires: bool = False
    appended: int = 0
    sealed: bool = False
    cancelled: bool = False
    expired: bool = False
    results: dict[int, str] = field(default_factory=dict[int, str])
    terminal: int = job_pb2.JOB_STATE_UNSPECIFIED
    failed: bool = False
    forced: bool = False
    pause: str = ""
    breaker_off: bool = False
    stopped_at: float | None = None
    ended_at: float | None = None
    deleted_at: float | None = None
    swept: bool = False
    forgotten: bool = False
    archived: bool = False
    suspects: set[int] = field(default_factory=set[int])
    killed_alone: Counter[int] = field(default_factory=Counter[int])
    condemned: set[int] = field(default_factory=set[int])

    @property
    def done(self) -> bool:
        """Whether the job takes no more results."""
        return self.terminal != job_pb2.JOB_STATE_UNSPECIFIED

    @property
    def open(self) -> bool:
        """Whether rows may be appended."""
        return not (self.sealed or self.halted)

    @property
    def halted(self) -> bool:
        """Whether its end was decided before all rows were done."""
        return self.cancelled or self.expired or self.failed or self.done

    @property
    def complete(self) -> bool:
        """Whether every row has a result."""
        return self.sealed and len(self.results) == self.appended

    @property
    def hidden(self) -> bool:
        """Whether commands do not find it in memory: it was deleted, or it has moved to the archive."""
        return self.archived or self.deleted_at is not None

    @property
    def paused(self) -> bool:
        """Whether it takes no leases for now."""
        return bool(self.pause) and not (self.halted or self.complete)

    def expires_by(self, now: float) -> bool:
        """Whether time alone has ended it by `now`."""
        if self.halted or self.complete:
            return False
        unsealed = self.open and now >= self.created_at + 24 * 3600
        return unsealed or (self.expires and now >= self.deadline)


@dataclass
class Held:
    """A lease as its worker knows it: the rows of it that lack a result, and what was committed under it."""

    message: pb.Lease
    parts: list[pb.CommitPartRequest] = field(default_factory=list[pb.CommitPartRequest])
    live: bool = True

    @property
    def rows(self) -> range:
        """Row indices of its chunk."""
        return range(self.message.chunk_start, self.message.chunk_start + self.message.chunk_rows)
