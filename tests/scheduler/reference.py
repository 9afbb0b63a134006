"""What clients and workers of a scheduler may expect, kept in plain sets, without a look at how it works.

The reference records what was acknowledged: rows by their index, leases by the fence that a worker was told.
"""

from dataclasses import dataclass, field

from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.v1 import job_pb2


@dataclass
class JobHistory:
    """What one job's callers know."""

    name: str
    appended: int = 0
    sealed: bool = False
    cancelled: bool = False
    expired: bool = False
    results: dict[int, str] = field(default_factory=dict[int, str])
    terminal: int = job_pb2.JOB_STATE_UNSPECIFIED
    failed: bool = False

    @property
    def done(self) -> bool:
        """Whether the job takes no more results."""
        return self.terminal != job_pb2.JOB_STATE_UNSPECIFIED

    @property
    def open(self) -> bool:
        """Whether rows may be appended."""
        return not (self.sealed or self.cancelled or self.expired or self.done)


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
