"""How long leases live, on the leader's own monotonic clock. Nothing of this is in the ledger."""

import heapq
from collections.abc import Iterable


class LeaseClock:
    """Expiry of each lease. A takeover gives every open lease a full time to live."""

    def __init__(self, ttl_seconds: float) -> None:
        self.ttl_seconds = ttl_seconds
        self._expiry: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def start(self, fence: int, now: float) -> None:
        """The lease was given out."""
        self._expiry[fence] = now + self.ttl_seconds
        heapq.heappush(self._heap, (self._expiry[fence], fence))

    def renew(self, fence: int, now: float) -> None:
        """The worker extended the lease; an unknown one stays unknown."""
        if fence in self._expiry:
            self._expiry[fence] = now + self.ttl_seconds

    def stop(self, fence: int) -> None:
        """The lease is over."""
        self._expiry.pop(fence, None)

    def sync(self, live: Iterable[int], now: float) -> None:
        """Know exactly the leases in `live`: new ones start now, others keep their expiry."""
        known = self._expiry
        self._expiry = {}
        self._heap = []
        for fence in live:
            self._expiry[fence] = known.get(fence, now + self.ttl_seconds)
            heapq.heappush(self._heap, (self._expiry[fence], fence))

    def restart(self, now: float) -> None:
        """Give every lease its full time again."""
        self._expiry = dict.fromkeys(self._expiry, now + self.ttl_seconds)

    def due(self, now: float) -> list[int]:
        """Leases whose time is over; they are reported until stopped."""
        self._settle()
        return sorted(fence for fence, expiry in self._expiry.items() if expiry <= now) if self._due(now) else []

    def next_expiry(self) -> float | None:
        """When the next lease expires unless it is extended; None without leases."""
        self._settle()
        return self._heap[0][0] if self._heap else None

    def _due(self, now: float) -> bool:
        return bool(self._heap) and self._heap[0][0] <= now

    def _settle(self) -> None:
        """Bring the head of the heap up to date; entries of stopped and renewed leases are corrected only there."""
        while self._heap:
            planned, fence = self._heap[0]
            expiry = self._expiry.get(fence)
            if expiry == planned:
                return
            heapq.heappop(self._heap)
            if expiry is not None:
                heapq.heappush(self._heap, (expiry, fence))
