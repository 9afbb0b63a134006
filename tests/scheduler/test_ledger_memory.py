"""The ledger in memory."""

import pytest

from services.scheduler.ledger import Ledger, MemoryLedger
from tests.scheduler.keeping_conformance import KeepingConformance
from tests.scheduler.ledger_conformance import LedgerConformance


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return MemoryLedger()

    def reopened(self, ledger: Ledger) -> Ledger:
        ledger.close()
        return ledger


class TestMemoryKeeping(KeepingConformance):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return MemoryLedger()

    def reopened(self, ledger: Ledger) -> Ledger:
        ledger.close()
        return ledger
