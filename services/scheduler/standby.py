"""A scheduler that does not lead: it keeps a warm copy of the state and watches the leader's term."""

from services.scheduler import snapshot
from services.scheduler.core.apply import apply, knows
from services.scheduler.core.state import State
from services.scheduler.framing import DamagedError, NewerError
from services.scheduler.ledger.base import READ_BATCH
from services.scheduler.ledger.terms import SharedLedger, Term
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

log = telemetry.logger(__name__)

DRIFT = 0.05
"""A term counts as over so much later than its leader thinks, as a share of it: clocks run at different rates."""


class WarmCopy:
    """The state as far as the ledger was read. Calls block.

    Attributes:
        state: fold of the events so far.
        unable: why this scheduler may not lead; empty when nothing speaks against it.
    """

    def __init__(self, ledger: SharedLedger, ledger_uid: str = "", last_sequence: int = 0) -> None:
        """`ledger_uid` and `last_sequence` are what is known of the ledger, from an earlier term."""
        self._ledger = ledger
        self._uid = ledger_uid
        self._last = last_sequence
        self.state = State()
        self.unable = ""

    def follow(self) -> Term:
        """Who leads, with every event up to now applied.

        Raises:
            TidemillError: UNAVAILABLE, LEDGER_CORRUPT or LEDGER_UNSAFE.
        """
        term = self._ledger.term()
        self._check_identity(term)
        self.catch_up(term.last_sequence)
        return term

    def catch_up(self, last_sequence: int) -> None:
        """Apply the events up to `last_sequence`, or find that this version cannot."""
        if not self.state.sequence:
            self._begin()
        before = -1
        while not self.unable and before < self.state.sequence < last_sequence:
            before = self.state.sequence
            for event in self._behind():
                if not knows(event):
                    self._refuse(
                        f"ledger event {event.sequence} is of a kind that this version does not know: upgrade this "
                        "scheduler; until then it does not lead"
                    )
                    return
                apply(self.state, event)

    def _behind(self) -> list[ledger_pb2.LedgerEvent]:
        """The next events; none when the leader has dropped them, and the copy goes on from a snapshot."""
        try:
            return self._ledger.follow(self.state.sequence, READ_BATCH)
        except TidemillError as error:
            if error.reason is not Reason.LEDGER_CORRUPT or self._ledger.term().compacted <= self.state.sequence:
                raise
            before = self.state.sequence
            self._begin()
            if self.state.sequence <= before and not self.unable:
                raise
            return []

    def _begin(self) -> None:
        """Start from the newest snapshot that is whole, or from nothing."""
        newer = ""
        for sequence in self._ledger.snapshots():
            try:
                self.state = snapshot.load(self._ledger.snapshot(sequence))
                return
            except NewerError as exc:
                newer = f"snapshot {sequence}: {exc}"
            except DamagedError as exc:
                log.error("snapshot damaged", sequence=sequence, why=str(exc))
        self.state = State()
        if newer and self._ledger.term().compacted:
            self._refuse(f"{newer}: upgrade this scheduler; until then it does not lead")

    def _check_identity(self, term: Term) -> None:
        """A Redis that came back empty, or with an older copy, must not be taken for the ledger."""
        if (self._uid and term.ledger_uid != self._uid) or term.last_sequence < self._last:
            self._refuse(
                f"the ledger was {self._uid} with {self._last} events and is {term.ledger_uid or 'empty'} with "
                f"{term.last_sequence}: restore it, or restart this scheduler to accept what is there"
            )
        else:
            self._uid, self._last = term.ledger_uid, term.last_sequence

    def _refuse(self, why: str) -> None:
        if not self.unable:
            log.error("cannot lead", why=why)
            self.unable = why


class TermWatch:
    """Tells when a leader has failed to renew its term, by this process's own monotonic clock alone.

    A term is over when its beat has stood still for its whole length while it could be seen. The leader counts the same
    length from before it sent the beat, so it stops answering before anybody else begins.
    """

    def __init__(self, term_seconds: float) -> None:
        self._patience = term_seconds * (1 + DRIFT)
        self._beat: tuple[int, int] | None = None
        self._since = 0.0

    def see(self, term: Term, asked: float, answered: float) -> bool:
        """Note a term that was read between two times in seconds; returns whether it is over."""
        beat = (term.epoch, term.beat)
        if beat != self._beat:
            self._beat, self._since = beat, answered
        return term.vacant or asked - self._since >= self._patience

    def lose_sight(self) -> None:
        """The term could not be read: the leader could not renew it then, and gets its time again."""
        self._beat = None
