"""Work that outlives the call that caused it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from tidemill import telemetry

log = telemetry.logger(__name__)


class Background:
    """Tasks that are kept alive, and waited for when the process ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run to the end, whatever becomes of the caller; a failure is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, seconds: float) -> None:
        """Give the tasks so long to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background work failed", error=str(error))
