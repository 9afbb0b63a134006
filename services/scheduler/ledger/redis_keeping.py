"""What a Redis ledger keeps beside its events: snapshots, archived jobs and the completion index."""

import heapq
import json
from collections.abc import Sequence
from typing import Any

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger import redis_keeping_scripts as scripts
from services.scheduler.ledger.keeping import COMPACT_BATCH, KEPT_SNAPSHOTS, PROBE_BYTES, ArchiveRow, completions_in
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.redis_answers import Answers
from services.scheduler.ledger.redis_calls import Calls, LostError
from tidemill.internal.v1 import ledger_pb2

LARGE_SECONDS = 30.0
"""A socket silent for so long has failed while a snapshot passes: it may have many megabytes."""


class RedisKeeping:
    """The part of `RedisLedger` that is beside the events. All keys share the hash tag of the ledger."""

    def __init__(self, address: RedisAddress, calls: Calls) -> None:
        self.address = address
        self._calls = calls
        self._large_calls = Calls(address, LARGE_SECONDS)
        self._answers = Answers(address)

    def _key(self, *parts: str) -> str:
        return ":".join((f"{{tidemill:{self.address.name}}}", *parts))

    def _write(self, script: str, keys: list[str], *arguments: Any, calls: Calls | None = None) -> list[Any]:
        """Run a script that may run twice."""
        try:
            answer = (calls or self._calls).script(script, [self._key("meta"), *keys], arguments, repeat=True)
        except LostError as exc:
            raise self._answers.write_failed(str(exc)) from None
        return self._answers.expect_ok(answer)

    def _ask(self, script: str, key: str, *arguments: Any, calls: Calls | None = None) -> list[Any]:
        try:
            return (calls or self._calls).script(script, [self._key("meta"), key], arguments, repeat=True)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None

    def _values(self, key: str, *fields: str, calls: Calls | None = None) -> list[bytes | None]:
        return [found[0] if found else None for found in self._ask(scripts.VALUES, key, *fields, calls=calls)]

    # Snapshots.

    def snapshots(self) -> list[int]:
        """Sequences of the stored snapshots, the newest first."""
        return sorted(map(int, self._ask(scripts.FIELDS, self._key("snapshots"))), reverse=True)

    def snapshot(self, sequence: int) -> bytes:
        """A stored snapshot, unchecked; empty when there is none."""
        (found,) = self._values(self._key("snapshots"), str(sequence), calls=self._large_calls)
        return found or b""

    def save_snapshot(self, epoch: int, sequence: int, blob: bytes) -> None:
        """Store a snapshot and drop the oldest."""
        keys = [self._key("snapshots")]
        self._write(scripts.SAVE_SNAPSHOT, keys, epoch, sequence, blob, KEPT_SNAPSHOTS, calls=self._large_calls)

    def discard_snapshot(self, epoch: int, sequence: int, why: str) -> None:
        """Set a snapshot aside in the hash `…:damaged-snapshots`."""
        keys = [self._key("snapshots"), self._key("damaged-snapshots")]
        self._write(scripts.DISCARD_SNAPSHOT, keys, epoch, sequence, why, calls=self._large_calls)

    def compact(self, epoch: int, sequence: int) -> bool:
        """Drop old events."""
        (left,) = self._write(scripts.COMPACT, [self._key("events")], epoch, sequence, COMPACT_BATCH)
        return bool(left)

    # Archive: a hash of rows by name, one of names by request, and sorted sets of names by tenant, and by state too.

    def archive_jobs(self, epoch: int, rows: Sequence[ArchiveRow]) -> None:
        """Store terminal jobs."""
        places: dict[str, int] = {}
        arguments: list[Any] = []
        for row in rows:
            every, of_state = (places.setdefault(key, len(places) + 4) for key in self._indices(row))
            arguments += [row.name, _packed(row), _request(row.tenant, row.request_id), every, of_state]
        if rows:
            self._write(scripts.ARCHIVE, [self._key("archive"), self._key("requests"), *places], epoch, *arguments)

    def archived(self, name: str) -> bytes | None:
        """An archived job's blob."""
        row = self._row(name)
        return row.blob if row else None

    def archived_request(self, tenant: str, request_id: str) -> str | None:
        """Name of the archived job of a request."""
        (found,) = self._values(self._key("requests"), _request(tenant, request_id))
        return found.decode() if found else None

    def list_archived(self, tenant: str, states: Sequence[JobState], before: str, limit: int) -> list[ArchiveRow]:
        """A page of a tenant's archived jobs, the newest first."""
        keys = [self._key("archived", tenant, str(int(state))) for state in states] or [self._key("archived", tenant)]
        below = f"({before}" if before else "+"
        pages = [self._ask(scripts.NAMES, key, below, limit) for key in keys]
        names = [name.decode() for name in heapq.merge(*pages, reverse=True)][:limit]
        return self._rows(names)

    def delete_archived(self, epoch: int, name: str) -> None:
        """Forget an archived job."""
        row = self._row(name)
        if row is None:
            self._write(scripts.DELETE_ARCHIVED, [self._key("archive"), self._key("requests")], epoch, name, "")
            return
        keys = [self._key("archive"), self._key("requests"), *self._indices(row)]
        self._write(scripts.DELETE_ARCHIVED, keys, epoch, name, _request(row.tenant, row.request_id))

    def _rows(self, names: Sequence[str]) -> list[ArchiveRow]:
        found = self._values(self._key("archive"), *names) if names else []
        return [_unpacked(name, packed) for name, packed in zip(names, found, strict=True) if packed]

    def _row(self, name: str) -> ArchiveRow | None:
        (packed,) = self._values(self._key("archive"), name)
        return _unpacked(name, packed) if packed else None

    def _indices(self, row: ArchiveRow) -> tuple[str, str]:
        every = self._key("archived", row.tenant)
        return every, f"{every}:{int(row.state)}"

    # Completions: a sorted set by tenant, written by the script that appends.

    def list_completions(self, tenant: str, after_sequence: int, limit: int) -> list[Completion]:
        """A slice of a tenant's completion index."""
        found = self._ask(scripts.FEED, self._key("feed", tenant), after_sequence, limit)
        entries = (member.decode().split(" ", 2) for member in found)
        return [Completion(int(sequence), _kind(kind), job) for sequence, kind, job in entries]

    def _index(self, events: Sequence[ledger_pb2.LedgerEvent]) -> tuple[list[str], list[str]]:
        """Keys of feeds, and what `APPEND` puts there; the first feed is its third key."""
        places: dict[str, int] = {}
        entries: list[str] = []
        for tenant, entry in completions_in(events):
            place = places.setdefault(self._key("feed", tenant), len(places) + 3)
            entries += [str(place), str(entry.sequence), f"{entry.sequence} {int(entry.kind)} {entry.job}"]
        return list(places), entries

    def _unindex(self, sequence: int) -> None:
        """Forget the completion of a damaged record; whose it was cannot be told."""
        feeds = self._calls.matching(self._key("feed", "*"))
        self._calls.script(scripts.UNINDEX, [self._key("meta"), *feeds], (sequence,))

    def probe(self, epoch: int) -> None:
        """Write a little."""
        self._write(scripts.PROBE, [self._key("probe")], epoch, bytes(PROBE_BYTES))


def _request(tenant: str, request_id: str) -> str:
    return f"{tenant}/{request_id}" if request_id else ""


def _packed(row: ArchiveRow) -> bytes:
    """A line of what is indexed, then the blob."""
    return json.dumps([row.tenant, int(row.state), row.request_id]).encode() + b"\n" + row.blob


def _unpacked(name: str, packed: bytes) -> ArchiveRow:
    head, _, blob = packed.partition(b"\n")
    tenant, state, request_id = json.loads(head)
    return ArchiveRow(name, tenant, state, request_id, blob)


def _kind(text: str) -> Any:
    return int(text)
