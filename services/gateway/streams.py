"""How many streams a tenant may have open here: they wait for long, and each takes one of the calls that all share."""

import contextlib
from collections import Counter
from collections.abc import Generator

from tidemill.errors import Reason, TidemillError

_RETRY_SECONDS = 5.0


class Streams:
    """Counts the open streams of each tenant in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def held(self, tenant: str) -> Generator[None]:
        """One more stream of a tenant; OVERLOADED when it has as many as it may."""
        if self._open[tenant] >= self._most:
            raise TidemillError(
                Reason.OVERLOADED,
                f"tenant {tenant} has {self._most} streams open at this gateway, as many as it may: end some, or share "
                "one among readers of the same job",
                metadata={"tenant": tenant, "limit": self._most},
                retry_after=_RETRY_SECONDS,
            )
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
