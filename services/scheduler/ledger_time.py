"""The time that goes on, whatever the wall clock does: what waits for seconds must not wait for hours."""

from services.scheduler.clock import Clock
from services.scheduler.core.times import SECOND


class LedgerTime:
    """Wall time, or where that lies behind the last event's, that time and what has passed since on the other clock.

    Waits (backoff, the grace of a stop, closing tasks) run on it. Deadlines are compared with the wall clock itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: tuple[float, int] | None = None

    def now_ns(self, last_ns: int) -> int:
        """The time now, where the latest time used so far is `last_ns`; never before that."""
        wall = self._clock.wall_ns()
        if wall >= last_ns:
            self._anchor = None
            return wall
        monotonic = self._clock.monotonic()
        if self._anchor is None:
            self._anchor = (monotonic, last_ns)
        since, base_ns = self._anchor
        return max(last_ns, base_ns + int((monotonic - since) * SECOND))
