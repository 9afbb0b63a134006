"""A Redis ledger written from a prepared file. Until the last step it has a format that no scheduler opens."""

import time

from services.scheduler.ledger import frames
from services.scheduler.ledger import redis_keeping_scripts as scripts
from services.scheduler.ledger.redis import FORMAT, RedisLedger
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.redis_calls import Calls, LostError
from services.scheduler.ledger.redis_keeping import LARGE_SECONDS, RedisKeeping
from services.scheduler.ledger_tool.portable import archive_of, completions_of
from services.scheduler.ledger_tool.source import BATCH, Source
from tidemill.errors import Reason, TidemillError


class RedisTarget(RedisKeeping):
    """Where a ledger is to be in Redis."""

    def __init__(self, address: RedisAddress, *, vouched: bool) -> None:
        super().__init__(address, Calls(address, LARGE_SECONDS))
        self._ledger = RedisLedger(address, vouched=vouched)

    def check_unused(self, term_seconds: float) -> None:
        """Refuse a Redis that may lose events, and a ledger whose term is renewed.

        Raises:
            TidemillError: LEDGER_UNSAFE, LEDGER_LOCKED or UNAVAILABLE.
        """
        self._ledger.check()
        before = self._ledger.term()
        if before.vacant:
            return
        end = time.monotonic() + term_seconds
        while time.monotonic() < end:
            time.sleep(term_seconds / 10)
            if self._ledger.term() != before:
                raise TidemillError(
                    Reason.LEDGER_LOCKED,
                    f"ledger {self.address} is in use by the scheduler at {before.address or 'an unknown address'}; "
                    "stop every scheduler on it",
                    metadata={"ledger": self.address, "holder": before.address},
                )

    def keys(self) -> list[str]:
        """Every key of the ledger, without what earlier restores put aside."""
        aside = self._key("replaced")
        return [key for key in self._calls.matching(self._key("*")) if not key.startswith(aside)]

    def put_aside(self) -> str:
        """Rename every key; returns the common part of the new names, or nothing."""
        keys = self.keys()
        if not keys:
            return ""
        aside = self._key("replaced", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        for key in keys:
            self._calls.rename(key, f"{aside}:{key.removeprefix(self._key(''))}")
        return aside

    def install(self, source: Source) -> None:
        """Write everything; a failure in between leaves what cannot be opened.

        Raises:
            TidemillError: LEDGER_FULL or LEDGER_WRITE_FAILED.
        """
        facts = source.facts()
        epoch = facts.epoch
        self._write(scripts.INSTALL, [], epoch)
        after = 0
        while batch := source.stored(after, BATCH):
            packed = [frames.pack(stored.event) for stored in batch if stored.event is not None]
            self._write_once(scripts.INSTALL_EVENTS, [self._key("events")], epoch, *packed)
            after = batch[-1].sequence
        for sequence in source.snapshots():
            self.save_snapshot(epoch, sequence, source.snapshot(sequence))
        for rows in archive_of(source):
            self.archive_jobs(epoch, rows)
        self._install_feeds(source, epoch)
        self._write(scripts.INSTALLED, [], epoch, FORMAT, facts.ledger_uid, facts.first_sequence - 1)

    def _write_once(self, script: str, keys: list[str], *arguments: object) -> None:
        """Run a script that must not run twice."""
        try:
            answer = self._calls.script(script, [self._key("meta"), *keys], arguments)
        except LostError as exc:
            raise self._answers.write_failed(str(exc)) from None
        self._answers.expect_ok(answer)

    def _install_feeds(self, source: Source, epoch: int) -> None:
        for entries in completions_of(source):
            feeds: dict[str, list[str | int]] = {}
            for tenant, entry in entries:
                member = f"{entry.sequence} {int(entry.kind)} {entry.job}"
                feeds.setdefault(tenant, []).extend((entry.sequence, member))
            for tenant, arguments in feeds.items():
                self._write(scripts.INSTALL_FEED, [self._key("feed", tenant)], epoch, *arguments)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._large_calls.close()
        self._ledger.close()
