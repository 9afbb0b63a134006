"""A ledger that does as it is told: it counts, waits and fails around a real one."""

import threading
from collections.abc import Sequence

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger import Ledger, MemoryLedger, Opened
from services.scheduler.ledger.keeping import ArchiveRow
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2


def write_failed() -> TidemillError:
    """What a broken disk raises."""
    return TidemillError(Reason.LEDGER_WRITE_FAILED, "the disk is full", retry_after=1.0)


class FakeLedger:
    """Wraps a real ledger.

    Attributes:
        appends: sizes of the appends that were tried.
        gate: while cleared, appends wait before they store anything.
        fail_before, fail_after: raised once, before or after storing.
        fail_reads: raised by every read while set.
        fail_saves: raised by every snapshot and archiving while set.
        fail_probes: raised by every probe while set.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.inner = ledger or MemoryLedger()
        self.appends: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fail_before: TidemillError | None = None
        self.fail_after: TidemillError | None = None
        self.fail_reads: TidemillError | None = None
        self.fail_saves: TidemillError | None = None
        self.fail_probes: TidemillError | None = None

    def open(self, owner: str) -> Opened:
        return self.inner.open(owner)

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        self.appends.append(len(events))
        self.entered.set()
        self.gate.wait(30)
        error, self.fail_before = self.fail_before, None
        if error:
            raise error
        sequence = self.inner.append(epoch, expected_sequence, events)
        error, self.fail_after = self.fail_after, None
        if error:
            raise error
        return sequence

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        if self.fail_reads:
            raise self.fail_reads
        return self.inner.read(after, limit)

    def close(self) -> None:
        self.inner.close()

    def snapshots(self) -> list[int]:
        return self.inner.snapshots()

    def snapshot(self, sequence: int) -> bytes:
        return self.inner.snapshot(sequence)

    def save_snapshot(self, epoch: int, sequence: int, blob: bytes) -> None:
        if self.fail_saves:
            raise self.fail_saves
        self.inner.save_snapshot(epoch, sequence, blob)

    def discard_snapshot(self, epoch: int, sequence: int, why: str) -> None:
        self.inner.discard_snapshot(epoch, sequence, why)

    def compact(self, epoch: int, sequence: int) -> bool:
        return self.inner.compact(epoch, sequence)

    def archive_jobs(self, epoch: int, rows: Sequence[ArchiveRow]) -> None:
        if self.fail_saves:
            raise self.fail_saves
        self.inner.archive_jobs(epoch, rows)

    def archived(self, name: str) -> bytes | None:
        return self.inner.archived(name)

    def archived_request(self, tenant: str, request_id: str) -> str | None:
        return self.inner.archived_request(tenant, request_id)

    def list_archived(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        return self.inner.list_archived(tenant, states, before, limit)

    def delete_archived(self, epoch: int, name: str) -> None:
        self.inner.delete_archived(epoch, name)

    def list_completions(self, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
        return self.inner.list_completions(tenant, after_sequence, limit)

    def probe(self, epoch: int) -> None:
        if self.fail_probes:
            raise self.fail_probes
        self.inner.probe(epoch)
