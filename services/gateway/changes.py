"""Waiting for a change of state that lives on one event loop."""

import asyncio
from collections.abc import Callable


class Changes:
    """A condition variable without a lock: state changes only between awaits, so none is needed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something changed: every waiter looks again."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`."""
        while not holds():
            await self._event.wait()
