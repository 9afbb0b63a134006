"""A clock that tests turn."""

from services.scheduler.clock import Clock
from services.scheduler.core.times import SECOND
from tests.scheduler import builders


class FakeClock:
    """Both clocks advance together; the wall clock can be set apart."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = float(builders.DEADLINE - 4 * 86_400)
        self.looks = 0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic += seconds
        self.wall += seconds

    def clock(self) -> Clock:
        """The clock to inject."""
        return Clock(lambda: int(self.wall * SECOND), self._look)

    def _look(self) -> float:
        self.looks += 1
        return self.monotonic
