"""Lets a chunk have an engine to itself: suspects of an engine's death run with nothing beside them."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["Gate"]


@dataclass
class _Waiter:
    alone: bool
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """Any number inside side by side, or one that is alone. First come, first served, so nobody starves.

    All methods belong to one event loop. Whoever waits may be cancelled; its place is given on.
    """

    def __init__(self) -> None:
        self._queue: deque[_Waiter] = deque()
        self._inside = 0
        self._closed = False

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @property
    def alone(self) -> bool:
        """Whether the one inside is alone by right."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @asynccontextmanager
    async def enter(self, *, alone: bool) -> AsyncGenerator[None]:
        """Be inside; with `alone`, with nobody else there from beginning to end."""
        await self._admitted(alone)
        try:
            yield
        finally:
            self._leave(alone)

    async def _admitted(self, alone: bool) -> None:
        waiter = _Waiter(alone)
        self._queue.append(waiter)
        self._admit()
        try:
            await waiter.admitted.wait()
        except asyncio.CancelledError:
            # Cancelled in the moment of being let in: it is inside and has to go out again.
            if waiter.admitted.is_set():
                self._leave(alone)
            else:
                self._queue.remove(waiter)
                self._admit()
            raise

    def _leave(self, alone: bool) -> None:
        self._inside -= 1
        self._closed = self._closed and not alone
        self._admit()

    def _admit(self) -> None:
        """Let in those at the head of the queue who may."""
        while self._queue and not self._closed and not (self._queue[0].alone and self._inside):
            waiter = self._queue.popleft()
            self._inside += 1
            self._closed = waiter.alone
            waiter.admitted.set()
