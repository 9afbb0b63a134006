"""When snapshots are taken: every so many events, beside the work, and at an orderly stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from services.scheduler import metrics, snapshot
from services.scheduler.core.state import State
from services.scheduler.ledger.base import Ledger
from tidemill import telemetry
from tidemill.errors import TidemillError

log = telemetry.logger(__name__)

EVERY_EVENTS = 50_000

Call = Callable[..., Awaitable[Any]]
"""Runs blocking ledger code in the ledger's thread."""


class Snapshots:
    """Takes snapshots and drops the events that no start needs any more.

    The events down to the snapshot before the newest are kept, so that a damaged snapshot costs nothing but time.
    """

    def __init__(self, ledger: Ledger, call: Call, every_events: int) -> None:
        self._ledger = ledger
        self._call = call
        self._every = every_events
        self._taken: list[int] = []
        self._due = every_events
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Know the snapshots that there are."""
        self._taken = sorted(await self._call(self._ledger.snapshots))
        self._due = (self._taken[-1] if self._taken else 0) + self._every

    def note(self, state: State, epoch: int) -> None:
        """Take a snapshot of a durable state when one is due and none is being taken."""
        if state.sequence < self._due or (self._task is not None and not self._task.done()):
            return
        self._due = state.sequence + self._every
        started = time.perf_counter()
        captured = snapshot.capture(state)
        metrics.SNAPSHOT_PAUSE_SECONDS.observe(time.perf_counter() - started)
        self._task = asyncio.create_task(self._save(captured, epoch), name="scheduler-snapshot")

    async def close(self, state: State | None, epoch: int) -> None:
        """Take a last one of a durable state, unless nothing has happened since the one before."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if state is not None and state.sequence > (self._taken[-1] if self._taken else 0):
            await self._save(snapshot.capture(state), epoch)

    async def _save(self, captured: dict[str, Any], epoch: int) -> None:
        started = time.perf_counter()
        writer = snapshot.Writer(captured)
        try:
            while await self._call(writer.step):
                pass
            blob = await self._call(writer.blob)
            await self._call(self._ledger.save_snapshot, epoch, writer.sequence, blob)
            # Asked anew: a rebuild may have set a damaged one aside, and the events behind it are still needed.
            self._taken = sorted(await self._call(self._ledger.snapshots))
            if len(self._taken) > 1:
                while await self._call(self._ledger.compact, epoch, self._taken[0]):
                    pass
        except TidemillError as error:
            log.warning("no snapshot", reason=error.reason, message=error.message)
            return
        seconds = round(time.perf_counter() - started, 3)
        log.info("snapshot taken", sequence=writer.sequence, bytes=len(blob), seconds=seconds)
