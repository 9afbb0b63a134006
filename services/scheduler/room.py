"""Whether the ledger has room. Once it was full, nothing is decided that it would have to store until a probe passes.

Without this each refused append would cost a rebuild of the state, and callers that only look would wait behind it.
"""

from collections.abc import Awaitable, Callable

from tidemill import telemetry
from tidemill.errors import Reason, TidemillError

log = telemetry.logger(__name__)

PROBE_SECONDS = 1.0
"""A full ledger is probed so often at most."""


class Room:
    """What is known of the ledger's room; `probe` writes a little, or raises LEDGER_FULL."""

    def __init__(self, probe: Callable[[], Awaitable[object]], monotonic: Callable[[], float]) -> None:
        self._probe = probe
        self._monotonic = monotonic
        self._refusal: TidemillError | None = None
        self._next = 0.0

    @property
    def refusal(self) -> TidemillError | None:
        """Why nothing can be stored now."""
        return self._refusal

    def note(self, error: TidemillError) -> None:
        """Remember that an append found no room."""
        if error.reason is Reason.LEDGER_FULL:
            self._refusal = error
            self._next = self._monotonic() + PROBE_SECONDS

    async def found_again(self) -> bool:
        """Probe a full ledger, if that was not done just now; returns whether it has room again.

        Raises:
            TidemillError: the ledger has another trouble.
        """
        if self._refusal is None or self._monotonic() < self._next:
            return False
        try:
            await self._probe()
        except TidemillError as error:
            if error.reason is not Reason.LEDGER_FULL:
                raise
            self.note(error)
            return False
        self._refusal = None
        log.info("the ledger has room again")
        return True
