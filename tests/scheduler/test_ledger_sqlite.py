"""The ledger in SQLite: conformance, the lock, and damage."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from services.scheduler.ledger import Ledger, SqliteLedger
from services.scheduler.ledger.base import replay
from tests.scheduler import builders
from tests.scheduler.keeping_conformance import KeepingConformance, finished, sealed
from tests.scheduler.ledger_conformance import LedgerConformance, events
from tests.scheduler.refusals import refusal
from tidemill.errors import Reason

_HOLDER = """
import sys
from pathlib import Path
from services.scheduler.ledger import SqliteLedger
SqliteLedger(Path(sys.argv[1])).open("pid 4711 on elsewhere")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.sqlite3"


class TestSqliteLedger(LedgerConformance):
    @pytest.fixture
    def ledger(self, path: Path) -> Ledger:
        return SqliteLedger(path)

    def reopened(self, ledger: Ledger) -> Ledger:
        assert isinstance(ledger, SqliteLedger)
        ledger.close()
        return SqliteLedger(ledger.path)


class TestSqliteKeeping(KeepingConformance):
    @pytest.fixture
    def ledger(self, path: Path) -> Ledger:
        return SqliteLedger(path)

    def reopened(self, ledger: Ledger) -> Ledger:
        assert isinstance(ledger, SqliteLedger)
        ledger.close()
        return SqliteLedger(ledger.path)


def written(path: Path, count: int) -> None:
    ledger = SqliteLedger(path)
    ledger.append(ledger.open("me").epoch, 0, events(1, count))
    ledger.close()


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def test_every_append_is_synced(path: Path):
    ledger = SqliteLedger(path)
    ledger.open("me")
    assert ledger.pragma("journal_mode") == "wal"
    assert ledger.pragma("synchronous") == 2
    ledger.close()


def test_a_second_process_is_refused_by_name(path: Path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    ledger = SqliteLedger(path)
    error = refusal(ledger.open, "me")
    assert error.reason is Reason.LEDGER_LOCKED
    assert "pid 4711 on elsewhere" in error.message
    assert "TIDEMILL_SCHEDULER_LEDGER" in error.message
    holder.kill()
    holder.communicate()
    assert ledger.open("me").epoch == 2
    ledger.close()


def test_a_damaged_last_record_is_set_aside_and_reported(path: Path):
    written(path, 3)
    change(path, "UPDATE events SET record = substr(record, 1, 5) WHERE sequence = 3")
    ledger = SqliteLedger(path)
    opened = ledger.open("me")
    assert "record 3, the last one" in opened.repaired
    assert opened.last_sequence == 2
    assert list(replay(ledger)) == events(1, 2)
    assert ledger.append(opened.epoch, 2, events(3)) == 3
    ledger.close()
    assert SqliteLedger(path).open("me").repaired == ""


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE events SET record = zeroblob(20) WHERE sequence = 2", "record 2 is damaged"),
        ("UPDATE events SET epoch = 9 WHERE sequence = 2", "record 2 is damaged"),
        ("DELETE FROM events WHERE sequence = 2", "record 2 is missing"),
    ],
)
def test_damage_inside_is_refused_by_record(path: Path, statement: str, why: str):
    written(path, 4)
    change(path, statement)
    ledger = SqliteLedger(path)
    ledger.open("me")
    error = refusal(lambda: list(replay(ledger)))
    assert error.reason is Reason.LEDGER_CORRUPT
    assert why in error.message
    ledger.close()


def test_another_format_is_refused(path: Path):
    written(path, 1)
    change(path, "UPDATE meta SET value = '99' WHERE key = 'format'")
    error = refusal(SqliteLedger(path).open, "me")
    assert error.reason is Reason.LEDGER_CORRUPT
    assert "format is 99" in error.message


def test_a_file_that_is_no_database_is_refused(path: Path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    error = refusal(SqliteLedger(path).open, "me")
    assert error.reason is Reason.LEDGER_CORRUPT
    assert path.read_bytes().startswith(b"not a database")


def test_a_torn_write_ahead_log_loses_only_what_was_not_synced(path: Path):
    """A copy taken while the writer lives, cut short: what a power failure leaves."""
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1, 3))
    log = path.with_name(path.name + "-wal").read_bytes()
    ledger.append(epoch, 3, events(4, 3))
    longer = path.with_name(path.name + "-wal").read_bytes()
    copy = path.with_name("copy.sqlite3")
    copy.write_bytes(path.read_bytes())
    copy.with_name("copy.sqlite3-wal").write_bytes(longer[: (len(log) + len(longer)) // 2])
    ledger.close()
    torn = SqliteLedger(copy)
    opened = torn.open("me")
    assert opened.last_sequence == 3
    assert list(replay(torn)) == events(1, 3)
    torn.close()


def test_a_full_disk_stores_nothing(path: Path):
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1))
    ledger.pragma("max_page_count = 8")
    error = refusal(ledger.append, epoch, 1, events(2, 2000))
    assert error.reason is Reason.LEDGER_FULL
    assert error.retry_after
    assert "free space" in error.message
    assert refusal(ledger.probe, epoch).reason is Reason.LEDGER_FULL
    ledger.pragma("max_page_count = 1000000")
    ledger.probe(epoch)
    assert list(replay(ledger)) == events(1)
    assert ledger.append(epoch, 1, events(2)) == 2
    ledger.close()


def test_a_closed_ledger_takes_nothing(path: Path):
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.close()
    assert refusal(ledger.append, epoch, 0, events(1)).reason is Reason.LEDGER_FENCED


def test_the_index_of_an_older_file_is_made_when_it_is_opened(path: Path):
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, [sealed(1), *events(2), finished(3, builders.job_name(1))])
    before = ledger.list_completions("acme", 0, 10)
    ledger.close()
    change(path, "DELETE FROM completions")
    change(path, "UPDATE meta SET value = '1' WHERE key = 'format'")
    ledger = SqliteLedger(path)
    ledger.open("me")
    assert ledger.list_completions("acme", 0, 10) == before != []
    ledger.close()


def test_a_damaged_last_record_leaves_the_index(path: Path):
    ledger = SqliteLedger(path)
    ledger.append(ledger.open("me").epoch, 0, [sealed(1), sealed(2)])
    ledger.close()
    change(path, "UPDATE events SET record = substr(record, 1, 5) WHERE sequence = 2")
    ledger = SqliteLedger(path)
    opened = ledger.open("me")
    assert opened.repaired
    assert [entry.sequence for entry in ledger.list_completions("acme", 0, 10)] == [1]
    assert ledger.append(opened.epoch, 1, [sealed(2)]) == 2
    ledger.close()


def test_a_damaged_last_record_that_a_snapshot_has_stays_in_the_index(path: Path):
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, [sealed(1), sealed(2)])
    ledger.save_snapshot(epoch, 2, b"all of it")
    ledger.close()
    change(path, "UPDATE events SET record = substr(record, 1, 5) WHERE sequence = 2")
    opened = ledger.open("me")
    assert opened.repaired
    assert opened.last_sequence == 2
    assert [entry.sequence for entry in ledger.list_completions("acme", 0, 10)] == [1, 2]
    ledger.close()


def test_a_snapshot_stands_for_a_damaged_last_record(path: Path):
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.append(epoch, 0, events(1, 3))
    ledger.save_snapshot(epoch, 3, b"state")
    ledger.close()
    change(path, "UPDATE events SET record = substr(record, 1, 5) WHERE sequence = 3")
    ledger = SqliteLedger(path)
    opened = ledger.open("me")
    assert "record 3, the last one" in opened.repaired
    assert opened.last_sequence == 3
    assert list(replay(ledger, 3)) == []
    assert ledger.append(opened.epoch, 3, events(4)) == 4
    assert list(replay(ledger, 3)) == events(4)
    ledger.close()


def test_damage_behind_a_snapshot_is_refused_by_record(path: Path):
    written(path, 6)
    ledger = SqliteLedger(path)
    epoch = ledger.open("me").epoch
    ledger.save_snapshot(epoch, 3, b"state")
    ledger.compact(epoch, 2)
    ledger.close()
    change(path, "UPDATE events SET record = zeroblob(20) WHERE sequence = 5")
    ledger = SqliteLedger(path)
    ledger.open("me")
    error = refusal(lambda: list(replay(ledger, 3)))
    assert error.reason is Reason.LEDGER_CORRUPT
    assert "record 5 is damaged" in error.message
    ledger.close()
