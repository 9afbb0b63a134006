"""How the ledger is kept small."""

from dataclasses import dataclass

from services.scheduler.snapshotting import EVERY_EVENTS


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Bounds on what memory and the ledger hold.

    Attributes:
        snapshot_events: events between two snapshots.
        archive_seconds: a terminal job leaves memory after so long.
        archive_jobs: so many terminal jobs stay in memory at most; the oldest leave first.
    """

    snapshot_events: int = EVERY_EVENTS
    archive_seconds: float = 600.0
    archive_jobs: int = 1000
