"""Several schedulers over one ledger: one leads, the others stand by and take over when its term ends.

A leader renews its term three times within it. One that cannot stops answering, reads too, when the term is over by its
own clock; another one takes over only after that, and its epoch fences whatever the former leader still tries to write.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.scheduler import metrics
from services.scheduler.app import Scheduler, owner
from services.scheduler.engine import Takeover
from services.scheduler.ledger.base import Opened
from services.scheduler.ledger.terms import SharedLedger, Term
from services.scheduler.service import SchedulerService
from services.scheduler.standby import TermWatch, WarmCopy
from services.scheduler.threads import CallThread
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.ops import Readiness
from tidemill.serving import Served

log = telemetry.logger(__name__)

POLL_SECONDS = 0.1
"""How often a standby looks: bounds how long a released term stays vacant."""
RETRY_SECONDS = 0.2
RENEWALS = 3
"""Renewals within a term."""

Barred = Callable[[], TidemillError | None]


@dataclass(slots=True)
class _Tenure:
    """How long this process may lead, in seconds of the monotonic clock."""

    epoch: int
    until: float

    def barred(self) -> TidemillError | None:
        """Why nothing may be answered now."""
        if time.monotonic() < self.until:
            return None
        return TidemillError(
            Reason.NOT_LEADER,
            "this scheduler could not renew its term in the ledger, and another one may lead; it answers once it can",
            retry_after=1.0,
        )


class Leadership:
    """Runs a scheduler whenever this process leads."""

    def __init__(self, ledger: SharedLedger, make: Callable[[Barred], Scheduler], term_seconds: float) -> None:
        """`make` gives a scheduler over the ledger that answers only while its argument bars nothing."""
        self._ledger = ledger
        self._make = make
        self._term_seconds = term_seconds
        self._thread = CallThread("term")
        self._copy = WarmCopy(ledger)
        self._scheduler: Scheduler | None = None
        self._leader = ""
        self._trouble: TidemillError | None = None
        self._advertise = ""
        self._tenure = _Tenure(0, 0.0)

    def leading(self) -> SchedulerService:
        """The scheduler that leads in this process.

        Raises:
            TidemillError: NOT_LEADER, with the leader's address where one is known.
        """
        if self._scheduler is not None:
            return self._scheduler.service
        more = f"; {self._leader} does" if self._leader else ""
        if self._trouble is not None:
            more = f": {self._trouble.message}"
        raise TidemillError(
            Reason.NOT_LEADER,
            f"this scheduler does not lead{more}",
            metadata={"leader": self._leader} if self._leader else None,
            retry_after=RETRY_SECONDS,
        )

    def readiness(self) -> Readiness:
        """Ready while it leads and may answer."""
        if self._scheduler is not None:
            barred = self._tenure.barred()
            if barred is None:
                return self._scheduler.readiness()
            return Readiness(False, {"role": "leader", "reason": barred.reason.value, "message": barred.message})
        details: dict[str, object] = {"role": "standby", "leader": self._leader, "events": self._copy.state.sequence}
        if self._copy.unable:
            details["unable"] = self._copy.unable
        if self._trouble is not None:
            details |= {"reason": self._trouble.reason.value, "message": self._trouble.message}
        return Readiness(False, details)

    async def run(self, served: Served, advertise: str = "") -> None:
        """Stand by and lead in turn until cancelled; `advertise` is where others reach this process.

        Raises:
            TidemillError: LEDGER_UNSAFE or LEDGER_CORRUPT.
        """
        self._advertise = advertise or served.address
        try:
            while True:
                takeover = await self._stand_by()
                try:
                    await self._lead(takeover, served)
                except TidemillError as error:
                    self._note_trouble(error)
        finally:
            await self._thread.call(self._ledger.close)
            self._thread.shutdown()

    async def _stand_by(self) -> Takeover:
        """Follow the leader until its term is over and this process has taken it."""
        watch = TermWatch(self._term_seconds)
        log.info("standing by")
        while True:
            asked = time.monotonic()
            try:
                term = await self._thread.call(self._copy.follow)
                self._see(term)
                if watch.see(term, asked, time.monotonic()) and not self._copy.unable:
                    return await self._take(term)
            except TidemillError as error:
                self._note_trouble(error)
                watch.lose_sight()
            await asyncio.sleep(POLL_SECONDS)

    def _see(self, term: Term) -> None:
        leader = "" if term.vacant else term.address
        if leader != self._leader:
            log.info("leader", address=leader, epoch=term.epoch)
        self._leader, self._trouble = leader, None

    def _note_trouble(self, error: TidemillError) -> None:
        """Wait out what passes; what an operator has to mend ends the process with the words of it."""
        if error.reason in (Reason.LEDGER_UNSAFE, Reason.LEDGER_CORRUPT):
            raise error
        if self._trouble is None and error.reason is not Reason.NOT_LEADER:
            log.warning("the ledger is away", reason=error.reason, message=error.message)
        self._trouble = error

    async def _take(self, term: Term) -> Takeover:
        """Claim the term as it was seen; raises NOT_LEADER when another process was faster."""
        asked = time.monotonic()
        opened = await self._thread.call(self._open, term)
        self._tenure = _Tenure(opened.epoch, asked + self._term_seconds)
        await self._thread.call(self._copy.catch_up, opened.last_sequence)
        if self._copy.unable:
            await self._thread.call(self._ledger.release, opened.epoch)
            raise TidemillError(Reason.NOT_LEADER, self._copy.unable)
        return Takeover(opened, self._copy.state)

    def _open(self, term: Term) -> Opened:
        self._ledger.check()
        self._ledger.claim(term, self._advertise)
        return self._ledger.open(owner())

    async def _lead(self, takeover: Takeover, served: Served) -> None:
        """Serve until the term is lost, or this is cancelled."""
        tenure = self._tenure
        scheduler = self._make(tenure.barred)
        renewing = asyncio.create_task(self._renew(tenure, scheduler, served), name="term")
        try:
            await scheduler.start(takeover)
            self._scheduler = scheduler
            metrics.LEADER.set(1)
            await served.set_serving(True)
            log.info("leading", epoch=tenure.epoch, address=self._advertise)
            stopped = asyncio.create_task(scheduler.engine.stopped.wait())
            await asyncio.wait([renewing, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        finally:
            await self._step_down(tenure, scheduler, renewing, served)

    async def _renew(self, tenure: _Tenure, scheduler: Scheduler, served: Served) -> None:
        """Keep the term; returns when another process has taken it."""
        pause = self._term_seconds / RENEWALS
        while True:
            await asyncio.sleep(pause)
            asked = time.monotonic()
            try:
                await self._thread.call(self._ledger.renew, tenure.epoch)
            except TidemillError as error:
                if error.reason is Reason.LEDGER_FENCED:
                    log.warning("term lost", message=error.message)
                    return
                log.warning("term not renewed", reason=error.reason, message=error.message)
                pause = RETRY_SECONDS
                if tenure.barred():
                    await served.set_serving(False)
                continue
            pause = self._term_seconds / RENEWALS
            if tenure.barred():
                log.warning("term renewed late", seconds=asked - tenure.until)
                scheduler.resume()
                await served.set_serving(self._scheduler is scheduler)
            tenure.until = asked + self._term_seconds

    async def _step_down(
        self, tenure: _Tenure, scheduler: Scheduler, renewing: "asyncio.Task[None]", served: Served
    ) -> None:
        self._scheduler = None
        self._leader = ""
        metrics.LEADER.set(0)
        await served.set_serving(False)
        renewing.cancel()
        await asyncio.wait([renewing])
        await scheduler.drain()
        await scheduler.engine.halt()
        # Before the rest, for which nobody has to wait.
        try:
            await self._thread.call(self._ledger.release, tenure.epoch)
        except TidemillError as error:
            log.info("term not released", reason=error.reason, message=error.message)
        opened = scheduler.engine.opened
        self._copy = WarmCopy(self._ledger, opened.ledger_uid, opened.last_sequence)
        await scheduler.close()
