"""How much one tenant may ask of this gateway: calls and bytes a second, and streams open at a time."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NoReturn

from tidemill.errors import Reason, TidemillError

BURST_SECONDS = 2.0
"""A tenant that was idle may use so many seconds' worth at once."""
LONGEST_WAIT_SECONDS = 10.0
"""A stream is slowed by so much a message at most; beyond it is refused."""
_STREAM_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class RateLimits:
    """Per tenant; 0 is no limit."""

    calls_per_second: int = 0
    upload_bytes_per_second: int = 0
    download_bytes_per_second: int = 0
    streams: int = 0


class Bucket:
    """Tokens that come back at a rate, up to two seconds' worth. What was taken may exceed what there was: the debt is
    paid before anything else is given."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._level = rate * BURST_SECONDS
        self._time = clock()

    def take(self, amount: float) -> float:
        """Take tokens; returns the seconds until none are owed."""
        self._fill()
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def give_back(self, amount: float) -> None:
        """Undo a `take`."""
        self._level += amount

    def seconds_until(self, amount: float) -> float:
        """How long until `amount` is there, or as much as there can be."""
        self._fill()
        return max(0.0, (min(amount, self._rate * BURST_SECONDS) - self._level) / self._rate)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._rate * BURST_SECONDS, self._level + (now - self._time) * self._rate)
        self._time = now


class Rates:
    """The buckets of all tenants."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._streams: Counter[str] = Counter()

    def admit_call(self, tenant: str) -> None:
        """Count a call, or raise RATE_EXCEEDED."""
        self._spend(tenant, "calls_per_second", 1)

    def admit_upload(self, tenant: str, size: int) -> None:
        """Count the request of a unary call, or raise RATE_EXCEEDED while earlier ones are not paid for."""
        self._spend(tenant, "upload_bytes_per_second", size)

    async def slow_upload(self, tenant: str, size: int) -> None:
        """Wait until a message of a stream may go on; RATE_EXCEEDED where that would be long."""
        await self._pay(tenant, "upload_bytes_per_second", size)

    async def slow_download(self, tenant: str, size: int) -> None:
        """Wait until another message may follow one of `size`; RATE_EXCEEDED where that would be long."""
        await self._pay(tenant, "download_bytes_per_second", size)

    def uses(self, tenant: str) -> list[tuple[str, int, int]]:
        """(what, limit, used now) of each limit."""
        open_now = {"streams": self._streams[tenant]}
        return [(limit, getattr(self._limits, limit), open_now.get(limit, 0)) for limit in _WORDS]

    @contextlib.contextmanager
    def stream(self, tenant: str) -> Generator[None]:
        """Hold one of the tenant's streams open; RATE_EXCEEDED when there is none left."""
        limit = self._limits.streams
        if limit and self._streams[tenant] >= limit:
            _refuse(tenant, "streams", limit, _STREAM_RETRY_SECONDS)
        self._streams[tenant] += 1
        try:
            yield
        finally:
            self._streams[tenant] -= 1
            if not self._streams[tenant]:
                del self._streams[tenant]

    def _spend(self, tenant: str, limit: str, amount: int) -> None:
        bucket = self._bucket(tenant, limit)
        if bucket is None:
            return
        if seconds := bucket.seconds_until(amount):
            _refuse(tenant, limit, getattr(self._limits, limit), seconds)
        bucket.take(amount)

    async def _pay(self, tenant: str, limit: str, amount: int) -> None:
        bucket = self._bucket(tenant, limit)
        if bucket is None:
            return
        seconds = bucket.take(amount)
        if seconds > LONGEST_WAIT_SECONDS:
            bucket.give_back(amount)
            _refuse(tenant, limit, getattr(self._limits, limit), seconds)
        if seconds:
            await asyncio.sleep(seconds)

    def _bucket(self, tenant: str, limit: str) -> Bucket | None:
        rate = getattr(self._limits, limit)
        if not rate:
            return None
        # Tenants are those of the keys file, so there are no more buckets than that has.
        bucket = self._buckets.get((tenant, limit))
        if bucket is None:
            bucket = self._buckets[tenant, limit] = Bucket(rate, self._clock)
        return bucket


_WORDS = {
    "calls_per_second": "calls a second",
    "upload_bytes_per_second": "bytes a second to this gateway",
    "download_bytes_per_second": "bytes a second from this gateway",
    "streams": "streams open at a time",
}


def _refuse(tenant: str, limit: str, value: int, seconds: float) -> NoReturn:
    remedy = "close some, or wait" if limit == "streams" else f"wait {seconds:.1f} s"
    raise TidemillError(
        Reason.RATE_EXCEEDED,
        f"tenant {tenant} may have {value} {_WORDS[limit]} (TIDEMILL_GATEWAY_TENANT_{limit.upper()}); {remedy}",
        metadata={"subject": f"tenants/{tenant}", "quota": limit, "limit": value},
        retry_after=seconds,
    )
