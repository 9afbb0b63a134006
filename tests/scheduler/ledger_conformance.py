"""What every ledger must do. A store's test module subclasses this and says how to open it and open it again."""

from abc import ABC, abstractmethod

import pytest

from services.scheduler.ledger.base import READ_BATCH, Ledger, replay
from tests.scheduler import builders
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2


def events(first: int, count: int = 1, epoch: int = 1) -> list[ledger_pb2.LedgerEvent]:
    """Valid events from sequence `first` on."""
    created = [ledger_pb2.JobCreated(spec=builders.spec(number)) for number in range(first, first + count)]
    return [
        ledger_pb2.LedgerEvent(sequence=number, epoch=epoch, job_created=payload)
        for number, payload in enumerate(created, first)
    ]


class LedgerConformance(ABC):
    """Subclasses name themselves `Test…`."""

    @pytest.fixture
    @abstractmethod
    def ledger(self) -> Ledger:
        """A new ledger, not opened."""

    @abstractmethod
    def reopened(self, ledger: Ledger) -> Ledger:
        """The same ledger as another process would find it after this one died."""

    def test_a_new_ledger_is_empty(self, ledger: Ledger) -> None:
        opened = ledger.open("me")
        assert opened.epoch == 1
        assert opened.last_sequence == 0
        assert opened.ledger_uid
        assert opened.repaired == ""
        assert list(replay(ledger)) == []

    def test_what_is_appended_is_read(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        assert ledger.append(epoch, 0, events(1, 3)) == 3
        assert ledger.append(epoch, 3, events(4)) == 4
        assert ledger.read(0, 10) == events(1, 4)
        assert ledger.read(1, 2) == events(2, 2)
        assert ledger.read(4, 10) == []

    def test_what_is_appended_survives(self, ledger: Ledger) -> None:
        first = ledger.open("me")
        ledger.append(first.epoch, 0, events(1, 3))
        again = self.reopened(ledger)
        opened = again.open("heir")
        assert opened.epoch > first.epoch
        assert opened.ledger_uid == first.ledger_uid
        assert opened.last_sequence == 3
        assert list(replay(again)) == events(1, 3)
        assert again.append(opened.epoch, 3, events(4, epoch=opened.epoch)) == 4

    def test_a_long_ledger_is_replayed_whole(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 2 * READ_BATCH + 1))
        assert [event.sequence for event in replay(ledger)] == list(range(1, 2 * READ_BATCH + 2))
        assert next(replay(ledger, 7)).sequence == 8

    def test_an_older_writer_is_fenced(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        again = self.reopened(ledger)
        current = again.open("heir").epoch
        assert refusal(again.append, epoch, 0, events(1)).reason is Reason.LEDGER_FENCED
        assert again.read(0, 10) == []
        again.append(current, 0, events(1))

    def test_a_writer_that_missed_events_is_fenced(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 3))
        for expected in (2, 4):
            error = refusal(ledger.append, epoch, expected, events(expected + 1))
            assert error.reason is Reason.LEDGER_FENCED
        assert ledger.read(0, 10) == events(1, 3)

    def test_events_are_numbered_without_gaps(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        with pytest.raises(ValueError, match="is due"):
            ledger.append(epoch, 0, [*events(1), *events(3)])
        assert ledger.read(0, 10) == []
