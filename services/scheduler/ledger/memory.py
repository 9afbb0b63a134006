"""A ledger in memory, for tests and throw-away runs: it lives as long as the process."""

import uuid
from collections.abc import Sequence

from services.scheduler.ledger.base import Opened, check_numbering, fenced
from tidemill.internal.v1 import ledger_pb2


class MemoryLedger:
    """Keeps the serialised events, so that what is read is what was written then."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._epoch = 0
        self._uid = str(uuid.uuid4())

    def open(self, owner: str) -> Opened:  # noqa: ARG002 - there is nobody to tell
        """Take over; an earlier writer is fenced."""
        self._epoch += 1
        return Opened(self._epoch, self._uid, len(self._records))

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events`; durable as far as memory is."""
        if epoch != self._epoch:
            raise fenced(f"epoch {epoch} was followed by {self._epoch}")
        if expected_sequence != len(self._records):
            raise fenced(f"it ends at {len(self._records)}, not {expected_sequence}")
        check_numbering(expected_sequence, events)
        self._records.extend(event.SerializeToString() for event in events)
        return len(self._records)

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above `after`."""
        return [ledger_pb2.LedgerEvent.FromString(record) for record in self._records[after : after + limit]]

    def close(self) -> None:
        """Nothing to let go of."""
