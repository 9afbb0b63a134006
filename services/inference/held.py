"""A lease while this worker holds it."""

import asyncio
from dataclasses import dataclass, field

from tidemill import names
from tidemill.internal.v1 import scheduler_service_pb2 as pb

__all__ = ["HeldLease"]


@dataclass(frozen=True)
class HeldLease:
    """The lease and what became of it.

    Attributes:
        void: set once the scheduler took the lease back.
        stopping: set when the worker shuts down and gives the lease back in order.
    """

    lease: pb.Lease
    void: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def job(self) -> str:
        """Job name."""
        return self.lease.spec.name

    @property
    def model(self) -> str:
        """Model id."""
        return self.lease.spec.model

    @property
    def key(self) -> pb.LeaseKey:
        """Name of the lease."""
        return pb.LeaseKey(job=self.job, fence=self.lease.fence)

    @property
    def group(self) -> str:
        """Name of its rows at an engine."""
        return f"{self.job}#{self.lease.fence}"

    @property
    def folder(self) -> str:
        """Folder of the job's results in the object store."""
        return f"{names.parse_job(self.job).prefix}/output"

    @property
    def ended(self) -> bool:
        """Nothing more is to be done for it."""
        return self.void.is_set() or self.stopping.is_set()
