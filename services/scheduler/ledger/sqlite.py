"""The ledger of the embedded mode: one SQLite file, WAL, an fsync for every append."""

import sqlite3
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger import sqlite_keeping as keeping
from services.scheduler.ledger.base import READ_BATCH, Opened, check_numbering, fenced
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.ledger.lockfile import LockFile
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

FORMAT = "2"
_UNINDEXED = "1"
"""Format without a completion index; it is made when such a file is opened."""

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
"""Result codes of a write for which there is no room: on the disk, in a quota, or below a limit on the file's size."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, record BLOB NOT NULL, crc32c INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS damaged (found_epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, record BLOB, why TEXT);
"""

READ = "SELECT sequence, epoch, record, crc32c FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?"

Row = tuple[int, int, bytes, int]


class SqliteLedger:
    """Events in a table, each with a checksum over its sequence, epoch and bytes.

    A power cut can at worst tear the last transaction, which SQLite rolls back. Damage to the last record is set aside
    and reported; damage anywhere before it refuses to open, because events after it were decided on its strength.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = LockFile(path.with_name(path.name + ".lock"))
        self._connection: sqlite3.Connection | None = None

    def open(self, owner: str) -> Opened:
        """Take over the file, creating it when missing."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(owner)
        try:
            return self._open()
        except sqlite3.DatabaseError as exc:
            self.close()
            raise self._corrupt(f"SQLite cannot read it ({exc})") from exc
        except TidemillError:
            self.close()
            raise

    def _open(self) -> Opened:
        # Autocommit mode: transactions are begun explicitly. The engine's thread is not the one that opens.
        db = self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA + keeping.SCHEMA)
        with _transaction(db):
            self._check_format(db)
            epoch = int(_meta(db, "epoch", "0")) + 1
            _set_meta(db, "epoch", str(epoch))
            uid = _meta(db, "ledger_uid", "") or str(uuid.uuid4())
            _set_meta(db, "ledger_uid", uid)
            repaired = self._set_aside_damaged_tail(db, epoch)
            last = _last_sequence(db)
        return Opened(epoch, uid, last, repaired)

    def _check_format(self, db: sqlite3.Connection) -> None:
        found = _meta(db, "format", FORMAT)
        if found not in (FORMAT, _UNINDEXED):
            raise self._corrupt(f"its format is {found}, and this version reads {FORMAT}")
        if found == _UNINDEXED:
            self._index(db)
        _set_meta(db, "format", FORMAT)

    def _index(self, db: sqlite3.Connection) -> None:
        after = 0
        while rows := db.execute(READ, (after, READ_BATCH)).fetchall():
            # A damaged record is found by the replay, which names it.
            keeping.index(db, [ledger_pb2.LedgerEvent.FromString(row[2]) for row in rows if not damage_of(row)])
            after = rows[-1][0]

    def _set_aside_damaged_tail(self, db: sqlite3.Connection, epoch: int) -> str:
        row: Row | None = db.execute(
            "SELECT sequence, epoch, record, crc32c FROM events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        if row is None or not (why := damage_of(row)):
            return ""
        db.execute("INSERT INTO damaged VALUES (?, ?, ?, ?)", (epoch, row[0], row[2], why))
        db.execute("DELETE FROM events WHERE sequence = ?", (row[0],))
        if row[0] not in keeping.snapshots(db)[:1]:
            # What a snapshot has in it has happened.
            db.execute("DELETE FROM completions WHERE sequence = ?", (row[0],))
        return f"record {row[0]}, the last one, was damaged ({why}) and is kept in table 'damaged'"

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events` in one transaction; its commit is the fsync."""
        check_numbering(expected_sequence, events)
        rows = [row_of(event) for event in events]
        with self._writing(epoch) as db:
            last = _last_sequence(db)
            if last != expected_sequence:
                raise fenced(f"it ends at {last}, not {expected_sequence}")
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
            keeping.index(db, events)
        return expected_sequence + len(rows)

    @contextmanager
    def _writing(self, epoch: int) -> Generator[sqlite3.Connection]:
        """A transaction of the current writer."""
        db = self._database()
        try:
            with _transaction(db):
                _check_owner(db, epoch)
                yield db
        except sqlite3.Error as exc:
            raise self._write_failed(exc) from exc

    def _write_failed(self, exc: sqlite3.Error) -> TidemillError:
        if exc.sqlite_errorcode in _NO_ROOM:
            return TidemillError(
                Reason.LEDGER_FULL,
                f"the ledger {self.path} cannot grow ({exc}): free space on its disk, or raise the limit on its size. "
                "What was acknowledged is kept, and work goes on by itself once there is room",
                metadata={"ledger": self.path},
                retry_after=5.0,
            )
        return TidemillError(
            Reason.LEDGER_WRITE_FAILED,
            f"the ledger {self.path} could not be written ({exc}); check the disk's health",
            retry_after=1.0,
        )

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above `after`, each checked."""
        try:
            rows: list[Row] = self._database().execute(READ, (after, limit)).fetchall()
        except sqlite3.DatabaseError as exc:
            raise self._corrupt(f"SQLite cannot read the records after {after} ({exc})") from exc
        return [self._checked(row, sequence) for sequence, row in enumerate(rows, after + 1)]

    def _checked(self, row: Row, sequence: int) -> ledger_pb2.LedgerEvent:
        if row[0] != sequence:
            raise self._corrupt(f"record {sequence} is missing")
        if why := damage_of(row):
            raise self._corrupt(f"record {sequence} is damaged ({why})")
        return ledger_pb2.LedgerEvent.FromString(row[2])

    def snapshots(self) -> list[int]:
        """Sequences of the stored snapshots, the newest first."""
        return keeping.snapshots(self._database())

    def snapshot(self, sequence: int) -> bytes:
        """A stored snapshot, unchecked."""
        return keeping.snapshot(self._database(), sequence)

    def save_snapshot(self, epoch: int, sequence: int, blob: bytes) -> None:
        """Store a snapshot and drop the oldest."""
        with self._writing(epoch) as db:
            keeping.save_snapshot(db, sequence, blob)

    def discard_snapshot(self, epoch: int, sequence: int, why: str) -> None:
        """Set a snapshot aside in table `damaged`."""
        with self._writing(epoch) as db:
            keeping.discard_snapshot(db, epoch, sequence, why)

    def compact(self, epoch: int, sequence: int) -> bool:
        """Drop old events; their pages are used again, the file does not shrink."""
        with self._writing(epoch) as db:
            return keeping.compact(db, sequence)

    def archive_jobs(self, epoch: int, rows: Sequence[ArchiveRow]) -> None:
        """Store terminal jobs."""
        with self._writing(epoch) as db:
            keeping.archive_jobs(db, rows)

    def archived(self, name: str) -> bytes | None:
        """An archived job's blob."""
        return keeping.archived(self._database(), name)

    def archived_request(self, tenant: str, request_id: str) -> str | None:
        """Name of the archived job of a request."""
        return keeping.archived_request(self._database(), tenant, request_id)

    def list_archived(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        """A page of a tenant's archived jobs, the newest first."""
        return keeping.list_archived(self._database(), tenant, states, before, limit)

    def delete_archived(self, epoch: int, name: str) -> None:
        """Forget an archived job."""
        with self._writing(epoch) as db:
            keeping.delete_archived(db, name)

    def list_completions(self, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
        """A slice of a tenant's completion index."""
        return keeping.list_completions(self._database(), tenant, after_sequence, limit)

    def probe(self, epoch: int) -> None:
        """Write a little."""
        with self._writing(epoch) as db:
            keeping.probe(db)

    def pragma(self, text: str) -> object:
        """Read or set one of SQLite's own settings; for operators and tests."""
        row = self._database().execute(f"PRAGMA {text}").fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the file and let go of the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise fenced("it is closed")
        return self._connection

    def _corrupt(self, why: str) -> TidemillError:
        return TidemillError(
            Reason.LEDGER_CORRUPT,
            f"the ledger {self.path} is not trusted: {why}; restore it from a backup",
            metadata={"ledger": self.path},
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _meta(db: sqlite3.Connection, key: str, default: str) -> str:
    row: tuple[str] | None = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else default


def _set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))


def _last_sequence(db: sqlite3.Connection) -> int:
    """Of the last event; a snapshot may outlive the events below it, or a damaged last one."""
    row: tuple[int] = db.execute(
        "SELECT coalesce(max(sequence), 0) FROM (SELECT max(sequence) AS sequence FROM events "
        "UNION ALL SELECT max(sequence) FROM snapshots)"
    ).fetchone()
    return row[0]


def _check_owner(db: sqlite3.Connection, epoch: int) -> None:
    current = int(_meta(db, "epoch", "0"))
    if current != epoch:
        raise fenced(f"epoch {epoch} was followed by {current}")


def row_of(event: ledger_pb2.LedgerEvent) -> Row:
    """The event as it is stored."""
    record = event.SerializeToString()
    return event.sequence, event.epoch, record, _checksum(event.sequence, event.epoch, record)


def _checksum(sequence: int, epoch: int, record: bytes) -> int:
    return google_crc32c.value(sequence.to_bytes(8, "big") + epoch.to_bytes(8, "big") + record)


def damage_of(row: Row) -> str:
    """What is wrong with a stored record; empty when nothing is."""
    sequence, epoch, record, crc32c = row
    return "" if _checksum(sequence, epoch, record) == crc32c else "its checksum does not match"
