"""How long an engine was busy, and for whom."""

import time
from collections.abc import Callable

__all__ = ["BusyMeter", "Stay"]


class BusyMeter:
    """Divides the wall time in which an engine has rows evenly, at each moment, among the chunks with rows inside.

    What all stays take, taken to the end, sums to the engine's busy time: the two are the same integral. Time runs on
    `clock`, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._inside = 0
        self._updated_at = clock()
        self._share = 0.0
        self._busy = 0.0

    @property
    def busy_seconds(self) -> float:
        """Wall time so far in which rows were inside."""
        self._advance()
        return self._busy

    def enter(self) -> "Stay":
        """A chunk's rows go in; `leave` of what is returned ends that."""
        self._advance()
        self._inside += 1
        return Stay(self, self._share)

    def share(self) -> float:
        """Seconds that a chunk inside since the beginning would have gathered."""
        self._advance()
        return self._share

    def left(self) -> float:
        """A chunk's rows are out; `share` at that moment. Called by its stay."""
        self._advance()
        self._inside -= 1
        return self._share

    def _advance(self) -> None:
        now = self._clock()
        if self._inside:
            elapsed = max(0.0, now - self._updated_at)
            self._busy += elapsed
            self._share += elapsed / self._inside
        self._updated_at = now


class Stay:
    """A chunk inside an engine, and its part of the engine's time."""

    def __init__(self, meter: BusyMeter, since: float) -> None:
        self._meter = meter
        self._since = since
        self._gathered = 0.0
        self._inside = True

    def take(self) -> float:
        """Seconds gathered since the last take; also after `leave`."""
        if self._inside:
            self._gather(self._meter.share())
        taken, self._gathered = self._gathered, 0.0
        return taken

    def leave(self) -> None:
        """The chunk's rows are out. Once is enough."""
        if self._inside:
            self._inside = False
            self._gather(self._meter.left())

    def _gather(self, share: float) -> None:
        self._gathered += share - self._since
        self._since = share
