"""A ledger that does as it is told: it counts, waits and fails around a real one."""

import threading
from collections.abc import Sequence

from services.scheduler.ledger import Ledger, MemoryLedger, Opened
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
