"""The scheduler put together: ledger, engine, clocks and calls."""

import asyncio
import os
import socket
from collections.abc import Callable

from prometheus_client import REGISTRY

from services.scheduler import metrics
from services.scheduler.archive import Archive
from services.scheduler.archivist import Archivist
from services.scheduler.clock import Clock
from services.scheduler.core.apply import job_of
from services.scheduler.core.limits import Limits
from services.scheduler.core.quotas import Quotas
from services.scheduler.core.state import State
from services.scheduler.engine import Engine, Events, Takeover
from services.scheduler.lease_clock import LeaseClock
from services.scheduler.ledger import Ledger
from services.scheduler.outlooks import Outlooks
from services.scheduler.polling import LeasePoll
from services.scheduler.service import SchedulerService
from services.scheduler.shell import Shell
from services.scheduler.signals import Changes, Signal
from services.scheduler.timer import Timer
from services.scheduler.upkeep import Upkeep
from services.scheduler.watching import JobWatch
from services.scheduler.workers import Workers
from tidemill import telemetry
from tidemill.errors import TidemillError
from tidemill.internal.v1 import ledger_pb2, records_pb2
from tidemill.ops import Readiness

log = telemetry.logger(__name__)

# What may give a waiting worker something to do: new work, or room under a cap.
_WAKING = frozenset(
    {
        "job_sealed",
        "job_resumed",
        "job_updated",
        "chunk_requeued",
        "finalise_requeued",
        "cleanup_requeued",
        "cleanup_finished",
        "job_ending",
        "part_committed",
        "model_changed",
    }
)


def owner() -> str:
    """This process, for messages of others."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


class Scheduler:
    """A scheduler over a ledger: `start`, serve `service`, `drain`, `close`."""

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        lease_seconds: float,
        clock: Clock | None = None,
        *,
        quotas: Quotas | None = None,
        barred: Callable[[], TidemillError | None] | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        """`barred` says why nothing may be answered now."""
        self._clock = clock or Clock()
        self._work = Signal()
        self._changes = Changes()
        self.leases = LeaseClock(lease_seconds)
        self._upkeep = upkeep or Upkeep()
        self.engine = Engine(
            ledger,
            self._clock,
            owner(),
            self._durable,
            barred,
            snapshot_events=self._upkeep.snapshot_events,
        )
        self._archivist = Archivist(self.engine, self._clock, self._upkeep)
        workers = Workers(lease_seconds)
        self.outlooks = Outlooks(workers, self._clock, limits)
        self.timer = Timer(
            self.engine, self.leases, self._work, clock=self._clock, limits=limits, outlooks=self.outlooks
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._collector = metrics.StateCollector(self.engine.peek)
        self._shell = Shell(
            engine=self.engine,
            archive=Archive(self.engine, self._clock),
            workers=workers,
            leases=self.leases,
            polls=LeasePoll(
                self.engine,
                workers,
                self._work,
                clock=self._clock,
                limits=limits,
                ttl_seconds=lease_seconds,
                outlooks=self.outlooks,
            ),
            watches=JobWatch(self._read_job, self._changes, self._clock),
            changes=self._changes,
            clock=self._clock,
            limits=limits,
            outlooks=self.outlooks,
            quotas=quotas or Quotas(),
        )
        self.service = SchedulerService(self._shell)

    async def start(self, takeover: Takeover | None = None) -> None:
        """Take the ledger over, unless that was done, and begin to serve.

        Raises:
            TidemillError: LEDGER_LOCKED or LEDGER_CORRUPT.
        """
        opened = await self.engine.start(takeover)
        if opened.repaired:
            log.error("ledger repaired", what=opened.repaired)
        log.info("ledger opened", epoch=opened.epoch, ledger_uid=opened.ledger_uid, events=opened.last_sequence)
        REGISTRY.register(self._collector)
        self._tasks = [
            asyncio.create_task(self.timer.run(), name="scheduler-timer"),
            asyncio.create_task(self._archivist.run(), name="scheduler-archivist"),
        ]

    def resume(self) -> None:
        """Go on after a time in which nobody was answered: no worker could extend a lease, so all live on."""
        self.leases.restart(self._clock.monotonic())

    async def drain(self) -> None:
        """Answer long polls and end watches; commits and releases go on."""
        self._shell.polls.drain()
        self._shell.watches.drain()

    async def close(self) -> None:
        """Stop, and let go of the ledger."""
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            REGISTRY.unregister(self._collector)
        await self.engine.close()

    def readiness(self) -> Readiness:
        """Ready while the state is there."""
        failure = self.engine.failure
        if failure is not None:
            return Readiness(False, {"reason": failure.reason.value, "message": failure.message})
        return Readiness(self.engine.peek() is not None)

    def _durable(self, state: State, events: Events) -> None:
        """React to what became durable; without events the state was rebuilt and anything may have changed."""
        now = self._clock.monotonic()
        if not events:
            self.leases.sync(state.leases, now)
            self.outlooks.restart(state)
            self._work.fire()
            self._changes.fire_all()
        for event in events:
            self._time_lease(state, event, now)
        self.outlooks.note(events)
        metrics.observe(state, events)
        if any(event.WhichOneof("payload") in _WAKING for event in events):
            self._work.fire()
        self._changes.fire({job for event in events if (job := job_of(event))})
        self.timer.poke()
        if state.ended:
            self._archivist.poke()

    def _time_lease(self, state: State, event: ledger_pb2.LedgerEvent, now: float) -> None:
        match event.WhichOneof("payload"):
            case "chunk_leased" | "finalise_leased" | "cleanup_leased":
                self.leases.start(state.fence_of(event), now)
            case "chunk_requeued":
                self.leases.stop(event.chunk_requeued.fence)
            case "finalise_requeued":
                self.leases.stop(event.finalise_requeued.fence)
            case "cleanup_requeued":
                self.leases.stop(event.cleanup_requeued.fence)
            case _:
                # Other ends of a lease are noticed when its time is over.
                pass

    async def _read_job(self, name: str) -> records_pb2.JobRecord:
        return await self._shell.read_job(name)
