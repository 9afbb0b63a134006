"""A Redis ledger, read beside the schedulers that use it."""

from collections import Counter
from functools import cached_property
from typing import cast

from services.scheduler.core.records import Completion, JobState
from services.scheduler.ledger import frames, redis_keeping_scripts, redis_scripts
from services.scheduler.ledger.keeping import ArchiveRow
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.redis_calls import Calls, LostError
from services.scheduler.ledger.redis_keeping import LARGE_SECONDS, RedisKeeping
from services.scheduler.ledger_tool.source import Facts, StoredEvent
from tidemill.errors import Reason, TidemillError

_ROWS = 500


class RedisSource(RedisKeeping):
    """Reads what is there in pieces: a copy is whole up to the last event that `facts` named."""

    def __init__(self, address: RedisAddress) -> None:
        super().__init__(address, Calls(address, LARGE_SECONDS))

    def facts(self) -> Facts:
        """The ledger now."""
        keys = [self._key("events"), self._key("meta")]
        try:
            epoch, uid, base, length = self._calls.facts(keys, ("epoch", "uid", "base"))
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
        if uid is None:
            raise TidemillError(Reason.INVALID_FILE, f"there is no ledger at {self.address}")
        first = int(base or 0) + 1
        last = max([first - 1 + length, *self.snapshots()])
        return Facts(str(self.address), uid.decode(), int(epoch), first, last, self._set_aside())

    def _set_aside(self) -> tuple[str, ...]:
        records = self._ask(redis_keeping_scripts.LENGTH, self._key("damaged"))
        snapshots = self._ask(redis_keeping_scripts.FIELDS, self._key("damaged-snapshots"))
        found = [f"{records[0]} last records, in {self._key('damaged')}"] if records[0] else []
        return (*found, *(name.decode() for name in snapshots))

    def stored(self, after: int, limit: int) -> list[StoredEvent]:
        """Records, each checked."""
        match self._ask_events(after, limit):
            case [b"ok", list(found), *_]:
                return [_stored(frame, number) for number, frame in enumerate(cast("list[bytes]", found), after + 1)]
            case [b"compacted", int(base)] if base > after:
                return self.stored(base, limit)
            case _:
                raise self._answers.corrupt(f"record {after + 1} is missing")

    def _ask_events(self, after: int, limit: int) -> list[object]:
        keys = [self._key("events"), self._key("meta")]
        try:
            return self._calls.script(redis_scripts.READ, keys, (after, limit), repeat=True)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None

    def archive_counts(self) -> dict[JobState, int]:
        """Reads all rows."""
        return dict(Counter(row.state for row in self.scan_archive("", len(self._archived_names))))

    @cached_property
    def _archived_names(self) -> list[str]:
        return sorted(name.decode() for name in self._ask(redis_keeping_scripts.FIELDS, self._key("archive")))

    def scan_archive(self, after: str, limit: int) -> list[ArchiveRow]:
        """By name; the names are those of the first call."""
        names = [name for name in self._archived_names if name > after][:limit]
        found: list[ArchiveRow] = []
        for first in range(0, len(names), _ROWS):
            found += self._rows(names[first : first + _ROWS])
        return found

    def scan_completions(self, after: int, limit: int) -> list[tuple[str, Completion]]:
        """By sequence; the entries are those of the first call."""
        return [entry for entry in self._entries if entry[1].sequence > after][:limit]

    @cached_property
    def _entries(self) -> list[tuple[str, Completion]]:
        prefix = self._key("feed", "")
        tenants = [key.removeprefix(prefix) for key in self._calls.matching(f"{prefix}*")]
        everything = 1 << 31
        entries = [(tenant, entry) for tenant in tenants for entry in self.list_completions(tenant, 0, everything)]
        return sorted(entries, key=lambda entry: entry[1].sequence)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._large_calls.close()


def _stored(frame: bytes, sequence: int) -> StoredEvent:
    if why := frames.damage(frame, sequence):
        return StoredEvent(sequence, None, why)
    return StoredEvent(sequence, frames.unpack(frame))
