"""A ledger as somebody sees it who does not own it: nothing is taken over, and its scheduler may run meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger.keeping import ArchiveRow
from tidemill.internal.v1 import ledger_pb2

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """What a ledger says of itself.

    Attributes:
        epoch: of its latest writer.
        first_sequence: of the first event that is stored; one above the last when none is.
        last_sequence: of the last event, stored or not.
        set_aside: damaged records that were set aside, in words.
    """

    address: str
    ledger_uid: str
    epoch: int
    first_sequence: int
    last_sequence: int
    set_aside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A stored record: its event, or what is wrong with it."""

    sequence: int
    event: ledger_pb2.LedgerEvent | None
    damage: str = ""


class Source(Protocol):
    """Reads a ledger. Raises TidemillError: INVALID_FILE, LEDGER_CORRUPT or UNAVAILABLE."""

    def facts(self) -> Facts:
        """The ledger now."""
        ...

    def stored(self, after: int, limit: int) -> list[StoredEvent]:
        """At most `limit` records above sequence `after`, in order; gaps are not reported here."""
        ...

    def snapshots(self) -> list[int]:
        """Sequences of the stored snapshots, the newest first."""
        ...

    def snapshot(self, sequence: int) -> bytes:
        """One of them."""
        ...

    def archive_counts(self) -> dict[JobState, int]:
        """Archived jobs by state."""
        ...

    def scan_archive(self, after: str, limit: int) -> list[ArchiveRow]:
        """At most `limit` archived jobs of all tenants above name `after`, by name."""
        ...

    def scan_completions(self, after: int, limit: int) -> list[tuple[str, Completion]]:
        """At most `limit` entries of the index above sequence `after`, each with its tenant."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def all_stored(source: Source, after: int = 0) -> Iterator[StoredEvent]:
    """Every record above sequence `after`, in order."""
    while batch := source.stored(after, BATCH):
        yield from batch
        after = batch[-1].sequence
