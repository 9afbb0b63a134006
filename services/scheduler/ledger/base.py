"""What a ledger promises.

One writer at a time: `open` takes over and fences every earlier one by its epoch. `append` is durable when it returns,
wholly or not at all. Calls block; the engine makes them from a thread of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.ledger.keeping import Keeping
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

READ_BATCH = 1000
"""Events that a replay reads at a time."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger that was taken over.

    Attributes:
        epoch: the new writer's term; every append quotes it.
        ledger_uid: identity of the ledger, for life.
        last_sequence: sequence of the last event; 0 when there is none.
        repaired: what was wrong with the last record and has been set aside; empty when all was well.
    """

    epoch: int
    ledger_uid: str
    last_sequence: int
    repaired: str = ""


class Ledger(Keeping, Protocol):
    """Append-only store of ledger events, numbered from 1 without gaps, and of what is kept beside them."""

    def open(self, owner: str) -> Opened:
        """Take over as the only writer; `owner` names the process in messages.

        Raises:
            TidemillError: LEDGER_LOCKED while another process holds it; LEDGER_CORRUPT when it cannot be trusted.
        """
        ...

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events` behind `expected_sequence` durably; returns the sequence of the last one.

        Raises:
            TidemillError: LEDGER_FENCED when another writer took over or wrote; LEDGER_WRITE_FAILED when nothing was
                stored, or nobody knows whether: read the tail.
        """
        ...

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above sequence `after`, in order.

        Raises:
            TidemillError: LEDGER_CORRUPT naming the record that cannot be trusted.
        """
        ...

    def close(self) -> None:
        """Let go of the ledger."""
        ...


def replay(ledger: Ledger, after: int = 0) -> Iterator[ledger_pb2.LedgerEvent]:
    """Every event above sequence `after`, in order."""
    while batch := ledger.read(after, READ_BATCH):
        yield from batch
        after = batch[-1].sequence


def check_numbering(expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> None:
    """Refuse events that do not continue the ledger without gaps: that is a bug of the writer."""
    for sequence, event in enumerate(events, expected_sequence + 1):
        if event.sequence != sequence:
            raise ValueError(f"event {event.sequence} stands where {sequence} is due")


def fenced(why: str) -> TidemillError:
    """The refusal of a writer that is no longer the one."""
    return TidemillError(Reason.LEDGER_FENCED, f"this scheduler no longer owns the ledger: {why}")


def compacted(ledger: object, sequence: int) -> TidemillError:
    """The refusal of a read of what was dropped, or is missing."""
    return TidemillError(
        Reason.LEDGER_CORRUPT,
        f"the ledger {ledger} is not trusted: record {sequence} is missing; restore it from a backup",
        metadata={"ledger": ledger},
    )
