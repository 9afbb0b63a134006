"""The end of long streams when the gateway is told to stop: clients go on at another one, or at its successor."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from tidemill.errors import Reason, TidemillError

T = TypeVar("T")


def going_away() -> TidemillError:
    """What streams end with."""
    return TidemillError(
        Reason.UNAVAILABLE, "the gateway is shutting down; reconnect and go on where you were", retry_after=1.0
    )


class Drain:
    """Set once, when the process is told to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def start(self) -> None:
        """Ask all streams to end."""
        self._event.set()

    async def wait(self) -> None:
        """Return when the process is told to stop."""
        await self._event.wait()

    async def until(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items, until the process is told to stop: then UNAVAILABLE."""
        stop = asyncio.ensure_future(self.wait())
        step: asyncio.Future[T] | None = None
        try:
            while True:
                step = asyncio.ensure_future(anext(items))
                await asyncio.wait({step, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    raise going_away()
                try:
                    item = step.result()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            stop.cancel()
            if step is not None:
                step.cancel()
