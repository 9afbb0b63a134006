"""What a ledger that several schedulers share says of who leads."""

from dataclasses import dataclass
from typing import Protocol

from services.scheduler.ledger.base import Ledger
from services.scheduler.ledger.keeping import Keeping
from tidemill.internal.v1 import ledger_pb2


@dataclass(frozen=True, slots=True)
class Term:
    """A leader's term, as another scheduler sees it.

    Attributes:
        epoch: of the leader; 0 when there never was one.
        beat: how often it was renewed.
        released: the leader has let go of it.
        address: `host:port` of the leader.
        ledger_uid: identity of the ledger; empty while there is none.
        last_sequence: sequence of the last event.
        compacted: sequence of the last event that was dropped; 0 when none was.
    """

    epoch: int
    beat: int
    released: bool
    address: str
    ledger_uid: str
    last_sequence: int
    compacted: int = 0

    @property
    def vacant(self) -> bool:
        """Nobody leads."""
        return self.epoch == 0 or self.released


class SharedLedger(Ledger, Keeping, Protocol):
    """A ledger with a term: a candidate watches it, claims it, and as leader renews it."""

    def check(self) -> None:
        """Refuse a store that may lose events. Raises TidemillError: LEDGER_UNSAFE, or UNAVAILABLE."""
        ...

    def follow(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """As `read`, for a scheduler that does not lead: without a damaged last record, which `open` sets aside."""
        ...

    def term(self) -> Term:
        """The term now. Raises TidemillError: UNAVAILABLE while the store cannot be reached."""
        ...

    def claim(self, seen: Term, address: str) -> None:
        """Let the next `open` succeed only if the term is still as seen; `address` is where this scheduler serves."""
        ...

    def renew(self, epoch: int) -> None:
        """Say that the leader of `epoch` lives. Raises TidemillError: LEDGER_FENCED or UNAVAILABLE."""
        ...

    def release(self, epoch: int) -> None:
        """Let another scheduler lead at once. Raises as `renew`."""
        ...
