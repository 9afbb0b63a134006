"""A ledger from any store, written as a SQLite ledger."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from services.scheduler.core.records import Completion
from services.scheduler.ledger import sqlite, sqlite_keeping
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.ledger.sqlite import SqliteLedger
from services.scheduler.ledger_tool.source import BATCH, Facts, Source, StoredEvent, all_stored
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2


def write_portable(source: Source, facts: Facts, path: Path) -> None:
    """Copy everything up to `facts.last_sequence` into the new file `path`.

    Raises:
        TidemillError: LEDGER_CORRUPT naming a damaged record.
    """
    _create(path)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        _write_events(db, source, facts)
        for sequence in source.snapshots():
            sqlite_keeping.save_snapshot(db, sequence, source.snapshot(sequence))
        _write_archive(db, source)
        _write_completions(db, source, facts)
        names = [(facts.ledger_uid, "ledger_uid"), (str(facts.epoch), "epoch")]
        db.executemany("UPDATE meta SET value = ? WHERE key = ?", names)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode=DELETE")
    finally:
        db.close()
    path.chmod(0o600)


def _create(path: Path) -> None:
    ledger = SqliteLedger(path)
    try:
        ledger.open("tidemill ledger backup")
    finally:
        ledger.close()
        path.with_name(path.name + ".lock").unlink(missing_ok=True)


def _write_events(db: sqlite3.Connection, source: Source, facts: Facts) -> None:
    wanted = (stored for stored in all_stored(source) if stored.sequence <= facts.last_sequence)
    rows = (sqlite.row_of(_whole(facts, stored)) for stored in wanted)
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)


def _whole(facts: Facts, stored: StoredEvent) -> ledger_pb2.LedgerEvent:
    if stored.event is None:
        raise TidemillError(
            Reason.LEDGER_CORRUPT,
            f"{facts.address}: record {stored.sequence} is damaged ({stored.damage})",
        )
    return stored.event


def _write_archive(db: sqlite3.Connection, source: Source) -> None:
    for rows in archive_of(source):
        sqlite_keeping.archive_jobs(db, rows)


def _write_completions(db: sqlite3.Connection, source: Source, facts: Facts) -> None:
    for entries in completions_of(source):
        known = ((tenant, entry) for tenant, entry in entries if entry.sequence <= facts.last_sequence)
        db.executemany(
            "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?)",
            [(tenant, entry.sequence, entry.kind, entry.job) for tenant, entry in known],
        )


def archive_of(source: Source) -> Iterable[list[ArchiveRow]]:
    """The archive in batches."""
    after = ""
    while rows := source.scan_archive(after, BATCH):
        yield rows
        after = rows[-1].name


def completions_of(source: Source) -> Iterable[list[tuple[str, Completion]]]:
    """The completion index in batches."""
    after = 0
    while entries := source.scan_completions(after, BATCH):
        yield entries
        after = entries[-1][1].sequence
