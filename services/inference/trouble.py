"""Failures that last: told in the log at their beginning, each minute, and at their end."""

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Trouble"]

_AGAIN_SECONDS = 60.0


class Trouble:
    """A call that is repeated twice a second would fill a disk with its warnings overnight.

    Args:
        warn: writes a log line of an event and fields.
        event: what is wrong.
    """

    def __init__(self, warn: Callable[..., Any], event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._warn = warn
        self._event = event
        self._clock = clock
        self._tries = 0
        self._told_at = 0.0

    def failed(self, **fields: Any) -> None:
        """It failed again."""
        now = self._clock()
        self._tries += 1
        if self._tries == 1 or now - self._told_at >= _AGAIN_SECONDS:
            self._told_at = now
            self._warn(self._event, tries=self._tries, **fields)

    def over(self) -> None:
        """It succeeded."""
        if self._tries:
            self._warn(f"{self._event}: over", tries=self._tries)
        self._tries = 0
