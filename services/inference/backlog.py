"""How much may wait to be committed: bytes over all leases of a worker, shared by the threads that read datasets."""

import threading
from collections.abc import Callable

__all__ = ["Backlog"]

_LOOK_SECONDS = 0.2


class Backlog:
    """A bound on bytes. A reader that would pass it waits; its dataset stands still, and so do rows at the engine."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def bytes(self) -> int:
        """What waits now."""
        return self._bytes

    def add(self, size: int, stopped: Callable[[], bool]) -> None:
        """Wait until there is room for so many bytes, and take it; at once when nothing waits, or when `stopped`."""
        with self._changed:
            while self._bytes and self._bytes + size > self._limit and not stopped():
                self._changed.wait(_LOOK_SECONDS)
            self._bytes += size

    def remove(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._bytes -= size
            self._changed.notify_all()
