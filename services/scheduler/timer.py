"""What happens because time passes: leases and jobs expire, stopped jobs end, work becomes due again."""

import asyncio

from services.scheduler.clock import Clock
from services.scheduler.core import due, leasing
from services.scheduler.core.limits import Limits
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Engine, Turn
from services.scheduler.lease_clock import LeaseClock
from services.scheduler.outlooks import Outlooks
from services.scheduler.signals import Signal
from tidemill import telemetry
from tidemill.errors import TidemillError
from tidemill.waiting import wait_for_event

log = telemetry.logger(__name__)

MAX_SLEEP_SECONDS = 60.0
"""Longest sleep: bounds how late a jump of the wall clock is noticed."""

STALL_SECONDS = 1.0
"""Waking up so much too late means that this process stood still, and no worker could extend anything."""

RETRY_SECONDS = 1.0


class Timer:
    """Sleeps until the next thing is due; `poke` it when that may have changed."""

    def __init__(
        self, engine: Engine, leases: LeaseClock, work: Signal, *, clock: Clock, limits: Limits, outlooks: Outlooks
    ) -> None:
        self._engine = engine
        self._leases = leases
        self._work = work
        self._clock = clock
        self._limits = limits
        self._outlooks = outlooks
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Plan again."""
        self._poked.set()

    async def run(self) -> None:
        """Work until cancelled, or until the engine has stopped."""
        while not self._engine.stopped.is_set():
            self._poked.clear()
            planned = self._next_wake()
            await wait_for_event(self._poked, planned - self._clock.monotonic())
            now = self._clock.monotonic()
            if now > planned + STALL_SECONDS:
                log.warning("stalled, leases restart", seconds=now - planned)
                self._leases.restart(now)
            if now >= planned:
                await self._tick()

    async def _tick(self) -> None:
        try:
            await self._engine.execute(self.step)
        except TidemillError as error:
            log.warning("timer waits", reason=error.reason, message=error.message)
            await asyncio.sleep(RETRY_SECONDS)

    def step(self, turn: Turn) -> None:
        """Record everything that is due now."""
        for fence in self._leases.due(self._clock.monotonic()):
            lease = turn.state.leases.get(fence)
            if lease is None:
                self._leases.stop(fence)
                continue
            # The clock forgets it once that is durable, so that a failed append leaves it due.
            log.warning("lease expired", job=lease.job, fence=fence, worker=lease.worker_id)
            turn.record(leasing.expire_lease(turn.state, fence, self._limits))
        while events := due.due_events(turn.state, self._limits, turn.now_ns):
            turn.record(events)
        self._outlooks.step(turn)
        # The clock went on with this turn: whatever waited for it may be leased now.
        self._work.fire()

    def _next_wake(self) -> float:
        """Monotonic time of the next thing due."""
        now = self._clock.monotonic()
        candidates = [now + MAX_SLEEP_SECONDS]
        expiry = self._leases.next_expiry()
        if expiry is not None:
            candidates.append(expiry)
        state = self._engine.peek()
        if state is not None:
            wall = self._clock.wall_ns()
            for time_ns in (due.next_event_ns(state, self._limits), self._outlooks.next_ns()):
                if time_ns is not None:
                    candidates.append(now + max(0, time_ns - wall) / SECOND)
            ledger = self._engine.time.now_ns(state.time_ns)
            wait = due.next_wait_ns(state, self._limits, ledger)
            if wait is not None:
                candidates.append(now + max(0, wait - ledger) / SECOND)
        return min(candidates)
