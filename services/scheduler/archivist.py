"""Moves terminal jobs from memory to the archive: after a while, or when there are many."""

import asyncio

from services.scheduler import archived
from services.scheduler.archived import ArchivedJob
from services.scheduler.clock import Clock
from services.scheduler.core.state import State
from services.scheduler.core.times import SECOND
from services.scheduler.engine import Engine, Turn
from services.scheduler.upkeep import Upkeep
from tidemill import telemetry
from tidemill.errors import TidemillError
from tidemill.internal.v1 import ledger_pb2
from tidemill.waiting import wait_for_event

log = telemetry.logger(__name__)

BATCH = 50
"""Jobs that move at a time: an append waits behind one batch at most."""

IDLE_SECONDS = 60.0
RETRY_SECONDS = 5.0


class Archivist:
    """Sleeps until a job is due; `poke` it when that may have changed."""

    def __init__(self, engine: Engine, clock: Clock, upkeep: Upkeep) -> None:
        self._engine = engine
        self._clock = clock
        self._upkeep = upkeep
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Look again."""
        self._poked.set()

    async def run(self) -> None:
        """Work until cancelled, or until the engine has stopped."""
        while not self._engine.stopped.is_set():
            self._poked.clear()
            if wait := self._wait_seconds():
                await wait_for_event(self._poked, wait)
                continue
            try:
                await self._move_batch()
                continue
            except TidemillError as error:
                log.warning("jobs stay in memory", reason=error.reason, message=error.message)
            except Exception as bug:
                # Memory would fill without a word if a bug ended this task.
                log.exception("jobs stay in memory", exc_info=bug)
            await asyncio.sleep(RETRY_SECONDS)

    def _wait_seconds(self) -> float:
        """Seconds until the oldest job is due; 0 when it is."""
        state = self._engine.peek()
        if state is None or not state.ended:
            return IDLE_SECONDS
        if len(state.ended) > self._upkeep.archive_jobs:
            return 0.0
        due_ns = state.ended[0][0] + self._upkeep.archive_seconds * SECOND
        return min(IDLE_SECONDS, max(0.0, (due_ns - self._clock.wall_ns()) / SECOND))

    async def _move_batch(self) -> None:
        """The archive has a job before memory forgets it; after a crash in between it is archived again.

        A deleted job is only forgotten: nobody reads it again, and its files are removed without its record.
        """
        taken = await self._engine.execute(self._take)
        epoch = self._engine.opened.epoch
        kept = [job for job in taken if not job.job.deleted]
        await self._engine.on_ledger(lambda ledger: ledger.archive_jobs(epoch, [archived.row(job) for job in kept]))
        await self._engine.execute(lambda turn: _forget(turn, taken))

    def _take(self, turn: Turn) -> list[ArchivedJob]:
        return [archived.take(turn.state, name) for name in self._due(turn.state)]

    def _due(self, state: State) -> list[str]:
        oldest = state.ended[:BATCH]
        surplus = len(state.ended) - self._upkeep.archive_jobs
        until_ns = self._clock.wall_ns() - self._upkeep.archive_seconds * SECOND
        return [name for place, (end_ns, name) in enumerate(oldest) if place < surplus or end_ns <= until_ns]


def _forget(turn: Turn, taken: list[ArchivedJob]) -> None:
    """Record what left memory, unless something happened to the job meanwhile."""
    for moved in taken:
        if turn.state.jobs.get(moved.job.name) == moved.job:
            event = ledger_pb2.JobArchived(job=moved.job.name)
            turn.record([ledger_pb2.LedgerEvent(job_archived=event)])
