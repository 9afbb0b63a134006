"""`LeaseChunks`: a long poll that wakes on new work, never by an interval."""

from collections.abc import Callable
from dataclasses import replace

from services.scheduler.clock import Clock
from services.scheduler.core import leasing, views
from services.scheduler.core.leasing import Requeue
from services.scheduler.core.limits import Limits
from services.scheduler.core.policy import Offer
from services.scheduler.core.records import Lease, LeaseKind
from services.scheduler.engine import Engine, Turn
from services.scheduler.outlooks import Outlooks
from services.scheduler.signals import Signal
from services.scheduler.workers import Worker, Workers
from tidemill.internal.v1 import ledger_pb2, scheduler_service_pb2
from tidemill.waiting import wait_for_event

MAX_WAIT_SECONDS = 30.0

Leases = list[scheduler_service_pb2.Lease]

_UNDELIVERED = Requeue(ledger_pb2.REQUEUE_REASON_RELEASED, "the worker's call ended before it had the lease")


class LeasePoll:
    """Hands out work to workers that wait for it."""

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        work: Signal,
        *,
        clock: Clock,
        limits: Limits,
        ttl_seconds: float,
        outlooks: Outlooks,
    ) -> None:
        """`work` fires when there may be something new to lease."""
        self._engine = engine
        self._workers = workers
        self._work = work
        self._clock = clock
        self._limits = limits
        self._ttl_seconds = ttl_seconds
        self._outlooks = outlooks
        self._draining = False

    def drain(self) -> None:
        """Answer all polls, present and future, at once."""
        self._draining = True
        self._work.fire()

    async def lease(self, worker: Worker, max_chunks: int, wait_seconds: float) -> Leases:
        """Work for the worker as soon as there is some; empty when `wait_seconds` passed without."""
        end = self._clock.monotonic() + wait_seconds
        with self._workers.polling(worker), self._work.waiter() as woken:
            while not self._draining:
                woken.clear()
                leases = await self._grant(self._workers.offer(worker, self._clock.monotonic()), max_chunks)
                left = end - self._clock.monotonic()
                if leases or left <= 0:
                    return leases
                await wait_for_event(woken, left)
        return []

    async def _grant(self, offer: Offer, max_chunks: int) -> Leases:
        granted: list[Lease] = []
        delivered = False
        try:
            leases = await self._engine.execute(self._grant_step(offer, max_chunks, granted))
            delivered = True
            return leases
        finally:
            if granted and not delivered:
                self._engine.post(self._give_back_step(granted))

    def _grant_step(self, offer: Offer, max_chunks: int, granted: list[Lease]) -> Callable[[Turn], Leases]:
        def step(turn: Turn) -> Leases:
            taking = replace(offer, tightness=self._outlooks.tightness(turn.state, turn.now_ns))
            while len(granted) < max_chunks:
                events = leasing.lease_next(turn.state, taking, self._limits, turn.now_ns)
                if not events:
                    break
                (event,) = turn.record(events)
                lease = turn.state.leases[turn.state.fence_of(event)]
                granted.append(lease)
                if lease.kind is LeaseKind.CHUNK:
                    taking = taking.taking(turn.state.jobs[lease.job].model)
            return [views.lease_message(turn.state, lease, self._ttl_seconds) for lease in granted]

        return step

    def _give_back_step(self, granted: list[Lease]) -> Callable[[Turn], None]:
        """Waiting for the expiry of what nobody received would cost a time to live and an attempt."""

        def step(turn: Turn) -> None:
            for lease in granted:
                if turn.state.leases.get(lease.fence) == lease:
                    turn.record(leasing.requeue_lease(turn.state, lease, _UNDELIVERED, self._limits))

        return step
