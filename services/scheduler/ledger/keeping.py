"""What a ledger keeps beside its events: snapshots of the state, jobs that left memory, and the completion index.

The index follows from the events and is written with them, in the same transaction. Snapshots and the archive are
written by the leader on its own account; like an append, they are refused to a writer of an earlier epoch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.core.records import Completion, JobState
from tidemill.internal.v1 import ledger_pb2
from tidemill.names import parse_job
from tidemill.v1 import job_service_pb2

KEPT_SNAPSHOTS = 2
"""The newest ones; should the newest be damaged, the one before and the events behind it give the same state."""

COMPACT_BATCH = 2000
"""Most events that one call of `compact` drops, so that an append never waits long behind it."""


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """A terminal job as the archive has it; `blob` is opaque to the ledger."""

    name: str
    tenant: str
    state: JobState
    request_id: str
    blob: bytes


class Keeping(Protocol):
    """Beside the events. Every call that changes something raises LEDGER_FENCED when `epoch` is not the current one,
    and LEDGER_FULL or LEDGER_WRITE_FAILED when nothing was stored.
    """

    def snapshots(self) -> list[int]:
        """Sequences of the stored snapshots, the newest first."""
        ...

    def snapshot(self, sequence: int) -> bytes:
        """The snapshot of the state after event `sequence`, as it was saved. Whoever reads it checks it."""
        ...

    def save_snapshot(self, epoch: int, sequence: int, blob: bytes) -> None:
        """Store a snapshot durably; only the newest `KEPT_SNAPSHOTS` stay."""
        ...

    def discard_snapshot(self, epoch: int, sequence: int, why: str) -> None:
        """Set a damaged snapshot aside, for people to look at."""
        ...

    def compact(self, epoch: int, sequence: int) -> bool:
        """Drop at most `COMPACT_BATCH` of the events up to and including `sequence`, the oldest first.

        Returns whether some are left. The numbering goes on; reading what was dropped raises LEDGER_CORRUPT.
        """
        ...

    def archive_jobs(self, epoch: int, rows: Sequence[ArchiveRow]) -> None:
        """Store jobs durably, each in place of an earlier row of its name."""
        ...

    def archived(self, name: str) -> bytes | None:
        """The blob of an archived job; None when it is not archived."""
        ...

    def archived_request(self, tenant: str, request_id: str) -> str | None:
        """Name of the archived job of a request id; None when there is none."""
        ...

    def list_archived(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        """At most `limit` archived jobs of a tenant by falling name, below `before` (empty: from the highest).

        Only jobs in `states`; empty means all.
        """
        ...

    def delete_archived(self, epoch: int, name: str) -> None:
        """Forget an archived job; nothing happens when it is not archived."""
        ...

    def list_completions(self, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
        """At most `limit` entries of the tenant's completion index above `after_sequence`, rising.

        Compaction takes nothing from the index.
        """
        ...

    def probe(self, epoch: int) -> None:
        """Write some kilobytes durably and drop them again: raises what an append would raise now."""
        ...


PROBE_BYTES = 65536
"""What `probe` writes: more than an append of a usual group needs."""


def completions_in(events: Iterable[ledger_pb2.LedgerEvent]) -> list[tuple[str, Completion]]:
    """The index entries that the events bring: tenant and entry."""
    entries: list[tuple[str, Completion]] = []
    for event in events:
        payload = event.WhichOneof("payload")
        if payload == "job_sealed":
            entries.append(_entry(event, job_service_pb2.COMPLETION_KIND_ACCEPTED, event.job_sealed.job))
        elif payload == "job_finished":
            entries.append(_entry(event, job_service_pb2.COMPLETION_KIND_FINISHED, event.job_finished.job))
    return entries


def _entry(
    event: ledger_pb2.LedgerEvent, kind: "job_service_pb2.CompletionKind.ValueType", job: str
) -> tuple[str, Completion]:
    return parse_job(job).tenant, Completion(event.sequence, kind, job)
