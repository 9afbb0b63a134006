"""A SQLite ledger, or a backup, which is one too."""

import sqlite3
from pathlib import Path
from typing import Any

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger import sqlite
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.ledger_tool.source import Facts, StoredEvent
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2


class SqliteSource:
    """Reads through a connection of its own, which neither waits for the scheduler nor keeps it waiting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise TidemillError(Reason.INVALID_FILE, f"{path} is not there: name a ledger file")
        self.connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        self._check()

    def freeze(self) -> None:
        """See one moment from now on: a scheduler that compacts meanwhile would look like damage."""
        self._rows("BEGIN")

    def _check(self) -> None:
        tables = {row[0] for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "meta" not in tables or "events" not in tables:
            self.close()
            raise TidemillError(Reason.INVALID_FILE, f"{self.path} is a SQLite file, but no ledger")
        found = self.meta("format")
        if found != sqlite.FORMAT:
            self.close()
            raise TidemillError(
                Reason.INVALID_FILE,
                f"{self.path} has format {found}, and this version reads {sqlite.FORMAT}; a scheduler brings an older "
                "one up to date when it starts",
            )

    def _rows(self, query: str, *values: object) -> list[Any]:
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as exc:
            raise TidemillError(
                Reason.LEDGER_CORRUPT, f"SQLite cannot read {self.path} ({exc}); restore it from a backup"
            ) from exc

    def meta(self, key: str) -> str:
        """A fact; empty when it is not there."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else ""

    def facts(self) -> Facts:
        """The ledger now."""
        ((first, last),) = self._rows("SELECT min(sequence), max(sequence) FROM events")
        last = max([last or 0, *self.snapshots()])
        aside = self._rows("SELECT sequence, why FROM damaged ORDER BY found_epoch, sequence")
        return Facts(
            address=str(self.path),
            ledger_uid=self.meta("ledger_uid"),
            epoch=int(self.meta("epoch") or 0),
            first_sequence=first or last + 1,
            last_sequence=last,
            set_aside=tuple(f"record {sequence}: {why}" for sequence, why in aside),
        )

    def stored(self, after: int, limit: int) -> list[StoredEvent]:
        """Records, each checked."""
        return [_stored(row) for row in self._rows(sqlite.READ, after, limit)]

    def snapshots(self) -> list[int]:
        """The newest first."""
        return [row[0] for row in self._rows("SELECT sequence FROM snapshots ORDER BY sequence DESC")]

    def snapshot(self, sequence: int) -> bytes:
        """One blob."""
        ((blob,),) = self._rows("SELECT blob FROM snapshots WHERE sequence = ?", sequence)
        return blob

    def archive_counts(self) -> dict[JobState, int]:
        """By state."""
        return dict(self._rows("SELECT state, count(*) FROM archive GROUP BY state"))

    def scan_archive(self, after: str, limit: int) -> list[ArchiveRow]:
        """By name."""
        query = "SELECT name, tenant, state, request_id, blob FROM archive WHERE name > ? ORDER BY name LIMIT ?"
        return [ArchiveRow(*row) for row in self._rows(query, after, limit)]

    def scan_completions(self, after: int, limit: int) -> list[tuple[str, Completion]]:
        """By sequence."""
        query = "SELECT tenant, sequence, kind, job FROM completions WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return [(row[0], Completion(*row[1:])) for row in self._rows(query, after, limit)]

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _stored(row: sqlite.Row) -> StoredEvent:
    if why := sqlite.damage_of(row):
        return StoredEvent(row[0], None, why)
    return StoredEvent(row[0], ledger_pb2.LedgerEvent.FromString(row[2]))
