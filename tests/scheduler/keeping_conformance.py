"""What every ledger must keep beside its events. A store's test module subclasses this as it does the other."""

from abc import ABC, abstractmethod
from dataclasses import replace

import pytest

from services.scheduler.core.records import Completion
from services.scheduler.ledger.base import Ledger, replay
from services.scheduler.ledger.keeping import COMPACT_BATCH, KEPT_SNAPSHOTS, ArchiveRow
from tests.scheduler import builders
from tests.scheduler.ledger_conformance import events
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason
from tidemill.internal.v1 import ledger_pb2
from tidemill.v1 import job_pb2, job_service_pb2

SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED
FAILED = job_pb2.JOB_STATE_FAILED


def row(number: int, tenant: str = "acme", state: job_pb2.JobState.ValueType = SUCCEEDED) -> ArchiveRow:
    """An archived job."""
    request = f"r{number}" if number % 2 else ""
    return ArchiveRow(builders.job_name(number, tenant), tenant, state, request, b"blob %d" % number)


def sealed(sequence: int, tenant: str = "acme") -> ledger_pb2.LedgerEvent:
    """A seal at `sequence`, of a job numbered alike."""
    payload = ledger_pb2.JobSealed(job=builders.job_name(sequence, tenant), row_count=1)
    return ledger_pb2.LedgerEvent(sequence=sequence, epoch=1, job_sealed=payload)


def finished(sequence: int, job: str) -> ledger_pb2.LedgerEvent:
    """An end at `sequence`."""
    return ledger_pb2.LedgerEvent(
        sequence=sequence, epoch=1, job_finished=ledger_pb2.JobFinished(job=job, state=SUCCEEDED)
    )


class KeepingConformance(ABC):
    """Subclasses name themselves `Test…`."""

    @pytest.fixture
    @abstractmethod
    def ledger(self) -> Ledger:
        """A new ledger, not opened."""

    @abstractmethod
    def reopened(self, ledger: Ledger) -> Ledger:
        """The same ledger as another process would find it after this one died."""

    def test_the_newest_snapshots_survive(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        assert ledger.snapshots() == []
        ledger.append(epoch, 0, events(1, 9))
        for sequence in range(1, 6):
            ledger.save_snapshot(epoch, sequence, b"state %d" % sequence)
        again = self.reopened(ledger)
        again.open("heir")
        assert again.snapshots() == [5, 4][:KEPT_SNAPSHOTS]
        assert again.snapshot(5) == b"state 5"
        assert again.snapshot(4) == b"state 4"

    def test_a_snapshot_can_be_saved_twice(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 3))
        ledger.save_snapshot(epoch, 3, b"first")
        ledger.save_snapshot(epoch, 3, b"again")
        assert ledger.snapshots() == [3]
        assert ledger.snapshot(3) == b"again"

    def test_a_large_snapshot_is_kept_whole(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1))
        blob = bytes(range(256)) * 20_000
        ledger.save_snapshot(epoch, 1, blob)
        again = self.reopened(ledger)
        again.open("heir")
        assert again.snapshot(1) == blob

    def test_a_discarded_snapshot_is_not_found_again(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 3))
        ledger.save_snapshot(epoch, 2, b"good")
        ledger.save_snapshot(epoch, 3, b"bad")
        ledger.discard_snapshot(epoch, 3, "its checksum does not match")
        again = self.reopened(ledger)
        again.open("heir")
        assert again.snapshots() == [2]

    def test_compaction_drops_the_front_and_the_numbering_goes_on(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 10))
        ledger.save_snapshot(epoch, 6, b"state")
        assert not ledger.compact(epoch, 6)
        assert ledger.read(6, 100) == events(7, 4)
        error = refusal(ledger.read, 3, 100)
        assert error.reason is Reason.LEDGER_CORRUPT
        assert "record 4 is missing" in error.message
        again = self.reopened(ledger)
        opened = again.open("heir")
        assert opened.last_sequence == 10
        assert again.append(opened.epoch, 10, events(11, epoch=opened.epoch)) == 11
        assert [event.sequence for event in replay(again, 6)] == [7, 8, 9, 10, 11]

    def test_a_ledger_compacted_to_its_end_goes_on(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 4))
        ledger.save_snapshot(epoch, 4, b"state")
        assert not ledger.compact(epoch, 4)
        assert not ledger.compact(epoch, 4)
        again = self.reopened(ledger)
        opened = again.open("heir")
        assert opened.last_sequence == 4
        assert list(replay(again, 4)) == []
        assert again.append(opened.epoch, 4, events(5)) == 5
        assert again.read(4, 10) == events(5)

    def test_compaction_goes_in_steps(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        count = 2 * COMPACT_BATCH + 10
        ledger.append(epoch, 0, events(1, count))
        ledger.save_snapshot(epoch, count - 5, b"state")
        steps = 1
        while ledger.compact(epoch, count - 5):
            steps += 1
        assert steps == 3
        assert [event.sequence for event in replay(ledger, count - 5)] == list(range(count - 4, count + 1))

    def test_archived_jobs_are_found_by_name_and_request(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.archive_jobs(epoch, [row(1), row(2), row(3, "other")])
        again = self.reopened(ledger)
        again.open("heir")
        assert again.archived(row(1).name) == b"blob 1"
        assert again.archived(row(4).name) is None
        assert again.archived_request("acme", "r1") == row(1).name
        assert again.archived_request("acme", "r3") is None
        assert again.archived_request("other", "r3") == row(3, "other").name
        assert again.archived_request("acme", "") is None

    def test_archiving_twice_changes_nothing(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        for _ in range(2):
            ledger.archive_jobs(epoch, [row(1), row(2)])
        assert ledger.list_archived("acme", [], "", 10) == [row(2), row(1)]

    def test_archived_jobs_are_paged_newest_first(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        rows = [row(number, state=FAILED if number % 3 == 0 else SUCCEEDED) for number in range(1, 10)]
        ledger.archive_jobs(epoch, [*rows, row(11, "other")])
        newest_first = rows[::-1]
        assert ledger.list_archived("acme", [], "", 4) == newest_first[:4]
        assert ledger.list_archived("acme", [], newest_first[3].name, 4) == newest_first[4:8]
        assert ledger.list_archived("acme", [FAILED], "", 2) == [rows[8], rows[5]]
        assert ledger.list_archived("acme", [FAILED], rows[5].name, 2) == [rows[2]]
        assert ledger.list_archived("acme", [FAILED, SUCCEEDED], "", 100) == newest_first
        assert ledger.list_archived("nobody", [], "", 4) == []

    def test_a_deleted_job_is_forgotten(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.archive_jobs(epoch, [row(1), row(2)])
        for _ in range(2):
            ledger.delete_archived(epoch, row(1).name)
        assert ledger.archived(row(1).name) is None
        assert ledger.archived_request("acme", "r1") is None
        assert ledger.list_archived("acme", [], "", 10) == [row(2)]

    def test_a_request_belongs_to_the_last_job_that_has_it(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        old, new = row(1), replace(row(2), request_id="r1")
        ledger.archive_jobs(epoch, [old])
        ledger.archive_jobs(epoch, [new])
        assert ledger.archived_request("acme", "r1") == new.name
        ledger.delete_archived(epoch, old.name)
        assert ledger.archived_request("acme", "r1") == new.name
        ledger.delete_archived(epoch, new.name)
        assert ledger.archived_request("acme", "r1") is None

    def test_seals_and_ends_are_indexed_by_tenant(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        one, other = builders.job_name(1), builders.job_name(2, "other")
        ledger.append(epoch, 0, [sealed(1), sealed(2, "other"), *events(3), finished(4, one), finished(5, other)])
        accepted, ended = job_service_pb2.COMPLETION_KIND_ACCEPTED, job_service_pb2.COMPLETION_KIND_FINISHED
        index = [Completion(1, accepted, one), Completion(4, ended, one)]
        assert ledger.list_completions("acme", 0, 10) == index
        assert ledger.list_completions("acme", 0, 1) == index[:1]
        assert ledger.list_completions("acme", 1, 10) == index[1:]
        assert ledger.list_completions("acme", 4, 10) == []
        assert ledger.list_completions("other", 0, 10) == [Completion(2, accepted, other), Completion(5, ended, other)]

    def test_compaction_leaves_the_index(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, [sealed(1), sealed(2), sealed(3)])
        ledger.save_snapshot(epoch, 2, b"state")
        ledger.compact(epoch, 2)
        again = self.reopened(ledger)
        again.open("heir")
        assert [entry.sequence for entry in again.list_completions("acme", 0, 10)] == [1, 2, 3]

    def test_what_was_not_appended_is_not_indexed(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, [sealed(1)])
        assert refusal(ledger.append, epoch, 4, [sealed(5)]).reason is Reason.LEDGER_FENCED
        assert [entry.sequence for entry in ledger.list_completions("acme", 0, 10)] == [1]

    def test_a_probe_leaves_no_trace(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1))
        ledger.probe(epoch)
        assert ledger.append(epoch, 1, events(2)) == 2
        assert ledger.read(0, 10) == events(1, 2)

    def test_an_older_writer_keeps_nothing(self, ledger: Ledger) -> None:
        epoch = ledger.open("me").epoch
        ledger.append(epoch, 0, events(1, 3))
        again = self.reopened(ledger)
        current = again.open("heir").epoch
        again.save_snapshot(current, 2, b"state")
        again.archive_jobs(current, [row(1)])
        for call in (
            lambda: again.save_snapshot(epoch, 3, b"old"),
            lambda: again.discard_snapshot(epoch, 2, "why not"),
            lambda: again.compact(epoch, 2),
            lambda: again.archive_jobs(epoch, [row(2)]),
            lambda: again.delete_archived(epoch, row(1).name),
            lambda: again.probe(epoch),
        ):
            assert refusal(call).reason is Reason.LEDGER_FENCED
        assert again.snapshots() == [2]
        assert again.read(0, 10) == events(1, 3)
        assert again.list_archived("acme", [], "", 10) == [row(1)]
