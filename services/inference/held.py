"""A lease while this worker holds it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.inference.link import LeaseVoidError
from tidemill import names
from tidemill.internal.v1 import scheduler_service_pb2 as pb

__all__ = ["HeldLease"]

T = TypeVar("T")


@dataclass(frozen=True)
class HeldLease:
    """The lease and what became of it.

    Attributes:
        void: set once the scheduler took the lease back.
        halted: set when the scheduler takes it back in a moment: rows are aborted, what is done may be committed.
        stopping: set when the worker shuts down and gives the lease back in order.
    """

    lease: pb.Lease
    void: asyncio.Event = field(default_factory=asyncio.Event)
    halted: asyncio.Event = field(default_factory=asyncio.Event)
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
        """No more rows are to be run for it."""
        return any(event.is_set() for event in self._ends)

    async def wait_ended(self) -> None:
        """Return once it has ended."""
        waits = [asyncio.ensure_future(event.wait()) for event in self._ends]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def unless_ended(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. When the lease ends first, `work` is cancelled and LeaseVoidError raised."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self.wait_ended())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise LeaseVoidError("the lease ended")
            return task.result()
        finally:
            ended.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    @property
    def _ends(self) -> tuple[asyncio.Event, ...]:
        return self.void, self.halted, self.stopping
