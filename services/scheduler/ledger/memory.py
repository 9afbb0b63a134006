"""A ledger in memory, for tests and throw-away runs: it lives as long as the process."""

import uuid
from bisect import bisect_right, insort
from collections.abc import Sequence

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger.base import Opened, check_numbering, compacted, fenced
from services.scheduler.ledger.keeping import COMPACT_BATCH, KEPT_SNAPSHOTS, ArchiveRow, completions_in
from tidemill.internal.v1 import ledger_pb2


class MemoryLedger:
    """Keeps the serialised events, so that what is read is what was written then."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._base = 0
        self._epoch = 0
        self._uid = str(uuid.uuid4())
        self._snapshots: dict[int, bytes] = {}
        self._archive: dict[str, ArchiveRow] = {}
        self._requests: dict[tuple[str, str], str] = {}
        self._completions: dict[str, list[Completion]] = {}

    def open(self, owner: str) -> Opened:  # noqa: ARG002 - there is nobody to tell
        """Take over; an earlier writer is fenced."""
        self._epoch += 1
        return Opened(self._epoch, self._uid, self._last)

    @property
    def _last(self) -> int:
        return self._base + len(self._records)

    @property
    def first_sequence(self) -> int:
        """Of the oldest event that was not dropped, or of the next one."""
        return self._base + 1

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events`; durable as far as memory is."""
        self._check(epoch)
        if expected_sequence != self._last:
            raise fenced(f"it ends at {self._last}, not {expected_sequence}")
        check_numbering(expected_sequence, events)
        self._records.extend(event.SerializeToString() for event in events)
        for tenant, entry in completions_in(events):
            insort(self._completions.setdefault(tenant, []), entry)
        return self._last

    def _check(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise fenced(f"epoch {epoch} was followed by {self._epoch}")

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above `after`."""
        if after < self._base:
            raise compacted("in memory", after + 1)
        first = after - self._base
        return [ledger_pb2.LedgerEvent.FromString(record) for record in self._records[first : first + limit]]

    def close(self) -> None:
        """Nothing to let go of."""

    def snapshots(self) -> list[int]:
        """The newest first."""
        return sorted(self._snapshots, reverse=True)

    def snapshot(self, sequence: int) -> bytes:
        """A stored snapshot."""
        return self._snapshots[sequence]

    def save_snapshot(self, epoch: int, sequence: int, blob: bytes) -> None:
        """Keep it, and the newest of the others."""
        self._check(epoch)
        self._snapshots[sequence] = blob
        for old in self.snapshots()[KEPT_SNAPSHOTS:]:
            del self._snapshots[old]

    def discard_snapshot(self, epoch: int, sequence: int, why: str) -> None:  # noqa: ARG002 - nobody will look
        """Drop it."""
        self._check(epoch)
        self._snapshots.pop(sequence, None)

    def compact(self, epoch: int, sequence: int) -> bool:
        """Drop events from the front."""
        self._check(epoch)
        count = max(0, min(sequence, self._last) - self._base)
        dropped = min(count, COMPACT_BATCH)
        del self._records[:dropped]
        self._base += dropped
        return dropped < count

    def archive_jobs(self, epoch: int, rows: Sequence[ArchiveRow]) -> None:
        """Keep the rows."""
        self._check(epoch)
        for row in rows:
            self._archive[row.name] = row
            if row.request_id:
                self._requests[row.tenant, row.request_id] = row.name

    def archived(self, name: str) -> bytes | None:
        """One row's blob."""
        row = self._archive.get(name)
        return row.blob if row else None

    def archived_request(self, tenant: str, request_id: str) -> str | None:
        """By request id."""
        return self._requests.get((tenant, request_id))

    def list_archived(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        """A page of a tenant's rows."""
        rows = [
            row
            for row in self._archive.values()
            if row.tenant == tenant and (not states or row.state in states) and (not before or row.name < before)
        ]
        return sorted(rows, key=lambda row: row.name, reverse=True)[:limit]

    def delete_archived(self, epoch: int, name: str) -> None:
        """Drop a row."""
        self._check(epoch)
        row = self._archive.pop(name, None)
        if row and self._requests.get((row.tenant, row.request_id)) == name:
            del self._requests[row.tenant, row.request_id]

    def list_completions(self, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
        """A slice of the index."""
        entries = self._completions.get(tenant, [])
        first = bisect_right(entries, after_sequence, key=lambda entry: entry.sequence)
        return entries[first : first + limit]

    def probe(self, epoch: int) -> None:
        """There is always room."""
        self._check(epoch)
