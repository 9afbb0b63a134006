"""Tables of the SQLite ledger beside the events: snapshots, the archive, the completion index.

Functions over a connection; whoever calls them begins the transaction and has checked the epoch.
"""

import sqlite3
from collections.abc import Sequence

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger.keeping import COMPACT_BATCH, KEPT_SNAPSHOTS, PROBE_BYTES, ArchiveRow, completions_in
from tidemill.internal.v1 import ledger_pb2

SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (sequence INTEGER PRIMARY KEY, blob BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS archive (
    name TEXT PRIMARY KEY, tenant TEXT NOT NULL, state INTEGER NOT NULL, request_id TEXT NOT NULL, blob BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS archive_by_tenant ON archive (tenant, name, state);
CREATE INDEX IF NOT EXISTS archive_by_request ON archive (tenant, request_id) WHERE request_id != '';
CREATE TABLE IF NOT EXISTS completions (
    tenant TEXT NOT NULL, sequence INTEGER NOT NULL, kind INTEGER NOT NULL, job TEXT NOT NULL,
    PRIMARY KEY (tenant, sequence)
) WITHOUT ROWID;
"""


def snapshots(db: sqlite3.Connection) -> list[int]:
    """Stored sequences, the newest first."""
    return [row[0] for row in db.execute("SELECT sequence FROM snapshots ORDER BY sequence DESC")]


def snapshot(db: sqlite3.Connection, sequence: int) -> bytes:
    """One blob."""
    row: tuple[bytes] = db.execute("SELECT blob FROM snapshots WHERE sequence = ?", (sequence,)).fetchone()
    return row[0]


def save_snapshot(db: sqlite3.Connection, sequence: int, blob: bytes) -> None:
    """Store one and drop the old ones."""
    db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (sequence, blob))
    for old in snapshots(db)[KEPT_SNAPSHOTS:]:
        db.execute("DELETE FROM snapshots WHERE sequence = ?", (old,))


def discard_snapshot(db: sqlite3.Connection, epoch: int, sequence: int, why: str) -> None:
    """Move one to the damaged records."""
    db.execute(
        "INSERT INTO damaged SELECT ?, sequence, blob, ? FROM snapshots WHERE sequence = ?",
        (epoch, f"snapshot: {why}", sequence),
    )
    db.execute("DELETE FROM snapshots WHERE sequence = ?", (sequence,))


def compact(db: sqlite3.Connection, sequence: int) -> bool:
    """Drop some events; returns whether others are left."""
    first: tuple[int | None] = db.execute("SELECT min(sequence) FROM events").fetchone()
    if first[0] is None:
        return False
    last = min(sequence, first[0] + COMPACT_BATCH - 1)
    db.execute("DELETE FROM events WHERE sequence <= ?", (last,))
    return last < sequence


def archive_jobs(db: sqlite3.Connection, rows: Sequence[ArchiveRow]) -> None:
    """Store rows."""
    values = [(row.name, row.tenant, row.state, row.request_id, row.blob) for row in rows]
    db.executemany("INSERT OR REPLACE INTO archive VALUES (?, ?, ?, ?, ?)", values)


def archived(db: sqlite3.Connection, name: str) -> bytes | None:
    """One row's blob."""
    row: tuple[bytes] | None = db.execute("SELECT blob FROM archive WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def archived_request(db: sqlite3.Connection, tenant: str, request_id: str) -> str | None:
    """Name by request id."""
    # A deleted job's request id is free again, so that a later job may have it too.
    query = "SELECT max(name) FROM archive WHERE tenant = ? AND request_id = ? AND request_id != ''"
    row: tuple[str | None] = db.execute(query, (tenant, request_id)).fetchone()
    return row[0]


def list_archived(
    db: sqlite3.Connection, tenant: str, states: Sequence[JobState], before: str, limit: int
) -> list[ArchiveRow]:
    """A page of rows."""
    query, values = "SELECT * FROM archive WHERE tenant = ?", [tenant]
    if states:
        query += f" AND state IN ({', '.join(str(int(state)) for state in states)})"
    if before:
        query += " AND name < ?"
        values.append(before)
    rows = db.execute(f"{query} ORDER BY name DESC LIMIT {limit:d}", values).fetchall()
    return [ArchiveRow(*row) for row in rows]


def delete_archived(db: sqlite3.Connection, name: str) -> None:
    """Drop a row."""
    db.execute("DELETE FROM archive WHERE name = ?", (name,))


def index(db: sqlite3.Connection, events: Sequence[ledger_pb2.LedgerEvent]) -> None:
    """Add what the events bring to the completion index."""
    rows = [(tenant, entry.sequence, entry.kind, entry.job) for tenant, entry in completions_in(events)]
    if rows:
        db.executemany("INSERT INTO completions VALUES (?, ?, ?, ?)", rows)


def list_completions(db: sqlite3.Connection, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
    """A slice of the index."""
    query = "SELECT sequence, kind, job FROM completions WHERE tenant = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    return [Completion(*row) for row in db.execute(query, (tenant, after_sequence, limit))]


def probe(db: sqlite3.Connection) -> None:
    """Write something of the size of an append; the caller commits it, and the next probe replaces it."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', ?)", ("x" * PROBE_BYTES,))
