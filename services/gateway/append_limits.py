"""What append streams may take of this process: so many streams a tenant, so many bytes of rows on their way."""

import asyncio
from collections import Counter

from services.gateway.changes import Changes
from tidemill.errors import Reason, TidemillError

# How long a frame waits for room before its stream is sent away, and when the client should come back.
_WAIT_SECONDS = 2.0
_RETRY_SECONDS = 1.0


class MemoryBudget:
    """Bytes of frames that were read and are not durable yet, over all streams."""

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit
        self._changes = Changes()

    async def take(self, size: int) -> None:
        """Reserve room for a frame. Waits for other rows to become durable; OVERLOADED when they do not."""
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                # A frame that is larger than everything is let in alone.
                await self._changes.until(lambda: not self.used or self.used + size <= self._limit)
        except TimeoutError:
            raise TidemillError(
                Reason.OVERLOADED,
                f"{self.used} bytes of rows wait to be stored and {self._limit} are allowed in all; reconnect and go "
                "on where you were",
                metadata={"waiting": self.used, "limit": self._limit},
                retry_after=_RETRY_SECONDS,
            ) from None
        self.used += size

    def give(self, size: int) -> None:
        """Give room back."""
        self.used -= size
        self._changes.notify()


class StreamLimit:
    """Append streams and submissions that a tenant has open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    def enter(self, tenant: str) -> None:
        """Count one more; OVERLOADED when the tenant has as many as it may."""
        if self._open[tenant] >= self._limit:
            raise TidemillError(
                Reason.OVERLOADED,
                f"{tenant} has {self._limit} append streams open and may have no more: send more rows on those, or "
                "come back when one has ended",
                metadata={"tenant": tenant, "limit": self._limit},
                retry_after=_RETRY_SECONDS,
            )
        self._open[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Count one less."""
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]
