"""The ledger of the clustered mode: a list in one Redis, with `appendfsync always`.

A reply of such a Redis leaves after the fsync of what it answers, so what a script returned is durable. An append whose
reply is lost is settled: a script reads the tail and bars the attempt, so it is either found stored or never will be.
"""

import uuid
from collections.abc import Sequence
from typing import cast

from services.scheduler.ledger import frames, redis_safety, redis_scripts
from services.scheduler.ledger.base import Opened, check_numbering, compacted
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.redis_calls import Calls, ForbiddenError, LostError
from services.scheduler.ledger.redis_keeping import RedisKeeping
from services.scheduler.ledger.terms import Term
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

log = telemetry.logger(__name__)

FORMAT = "1"
CALL_SECONDS = 3.0
"""A socket silent for so long has failed: an fsync on a busy disk may take a second or two."""
TERM_SECONDS = 1.0
"""The same for calls about the term, which have to be tried again within it."""

_TERM_FIELDS = ("epoch", "beat", "released", "address", "uid", "base")


class RedisLedger(RedisKeeping):
    """Events as frames in a list, facts about the ledger in a hash, under one hash tag."""

    def __init__(self, address: RedisAddress, *, vouched: bool = False) -> None:
        """`vouched`: the operator says that Redis is set up right where its settings cannot be read."""
        super().__init__(address, Calls(address, CALL_SECONDS))
        self._vouched = vouched
        self._keys = [self._key("events"), self._key("meta")]
        self._term_calls = Calls(address, TERM_SECONDS)
        self._seen: Term | None = None
        self._advertised = ""
        self._attempt = 0
        self._doubt: tuple[int, list[bytes]] | None = None

    def open(self, owner: str) -> Opened:
        """Take over; with a claim, only if the term is as it was seen.

        Raises:
            TidemillError: LEDGER_UNSAFE, LEDGER_CORRUPT, NOT_LEADER when another scheduler was faster, or UNAVAILABLE.
        """
        self.check()
        seen = self._seen
        claim = (str(seen.epoch), str(seen.beat)) if seen else ("", "0")
        arguments = (FORMAT, str(uuid.uuid4()), owner, self._advertised, *claim)
        try:
            answer = self._calls.script(redis_scripts.OPEN, self._keys, arguments)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
        match answer:
            case [b"ok", int(epoch), bytes(uid), int(last), *frame]:
                self._attempt, self._doubt = 0, None
                last, repaired = self._set_aside_damaged_tail(epoch, last, frame)
                return Opened(epoch, uid.decode(), last, repaired)
            case [b"beaten", int(epoch)]:
                raise TidemillError(Reason.NOT_LEADER, f"another scheduler leads (epoch {epoch})", retry_after=1.0)
            case [b"format", bytes(found)]:
                raise self._answers.corrupt(
                    f"its format is {found.decode(errors='replace')}, and this version reads {FORMAT}"
                )
            case _:
                raise self._answers.corrupt(f"it has events in {self._keys[0]} and no facts in {self._keys[1]}")

    def check(self) -> None:
        """Refuse a Redis that may lose events. Raises TidemillError: LEDGER_UNSAFE, or UNAVAILABLE."""
        try:
            redis_safety.check_version(self._calls.version())
            redis_safety.check_settings(self._calls.settings())
        except ForbiddenError as exc:
            if not self._vouched:
                raise redis_safety.unknown_settings(str(exc)) from None

    def _set_aside_damaged_tail(self, epoch: int, last: int, frame: list[bytes]) -> tuple[int, str]:
        """Sequence of the last event, and what was wrong with the one that followed it."""
        if not frame or not (why := frames.damage(frame[0], last)):
            return last, ""
        keys = [*self._keys, self._key("damaged"), self._key("snapshots")]
        try:
            answer = self._calls.script(redis_scripts.SET_ASIDE, keys, (epoch, last))
            (left,) = self._answers.expect_ok(answer)
            if left < last:
                self._unindex(last)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
        return left, f"record {last}, the last one, was damaged ({why}) and is kept in the list {self._key('damaged')}"

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events` by one script, whose reply follows the fsync."""
        check_numbering(expected_sequence, events)
        self._settle()
        self._attempt += 1
        packed = [frames.pack(event) for event in events]
        keys, entries = self._index(events)
        counts = (str(epoch), str(expected_sequence), str(self._attempt), str(len(packed)))
        try:
            answer = self._calls.script(redis_scripts.APPEND, [*self._keys, *keys], (*counts, *packed, *entries))
            self._answers.expect_ok(answer)
        except LostError as exc:
            self._doubt = (epoch, packed)
            if not self._settle():
                raise self._answers.write_failed(str(exc)) from None
        return expected_sequence + len(packed)

    def _settle(self) -> bool:
        """Find out whether the append in doubt is stored; afterwards it is, or never will be."""
        if self._doubt is None:
            return False
        epoch, packed = self._doubt
        arguments = (str(epoch), str(self._attempt), str(len(packed)))
        try:
            answer = self._calls.script(redis_scripts.SETTLE, self._keys, arguments)
        except LostError as exc:
            raise self._answers.write_failed(str(exc)) from None
        self._answers.expect_ok(answer)
        self._doubt = None
        stored = answer[2] == packed
        log.warning("the reply to an append was lost", stored=stored, events=len(packed))
        return stored

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above `after`, each checked; what is in doubt is settled first."""
        self._settle()
        packed, _ = self._frames(self._calls, after, limit)
        return [self._checked(frame, number) for number, frame in enumerate(packed, after + 1)]

    def _frames(self, calls: Calls, after: int, limit: int) -> tuple[list[bytes], int]:
        """Frames as they are stored, and the sequence of the last one in the ledger."""
        try:
            answer = calls.script(redis_scripts.READ, self._keys, (after, limit), repeat=True)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
        match answer:
            case [b"ok", list(found), int(last)]:
                return cast("list[bytes]", found), last
            case _:
                raise compacted(self.address, after + 1)

    def _checked(self, frame: bytes, sequence: int) -> ledger_pb2.LedgerEvent:
        if why := frames.damage(frame, sequence):
            raise self._answers.corrupt(f"record {sequence} is damaged ({why})")
        return frames.unpack(frame)

    def close(self) -> None:
        """Let go of the connections; the term, where there is one, is released by `release`."""
        self._calls.close()
        self._large_calls.close()
        self._term_calls.close()

    # The term, called from another thread than the rest.

    def follow(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """As `read`, for a scheduler that does not lead: a damaged last record is left to whoever opens the ledger."""
        packed, last = self._frames(self._term_calls, after, limit)
        if packed and after + len(packed) == last and frames.damage(packed[-1], last):
            packed.pop()
        return [self._checked(frame, number) for number, frame in enumerate(packed, after + 1)]

    def term(self) -> Term:
        """Who leads, as Redis knows it."""
        try:
            epoch, beat, released, address, uid, base, length = self._term_calls.facts(self._keys, _TERM_FIELDS)
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
        return Term(
            epoch=int(epoch or 0),
            beat=int(beat or 0),
            released=released == b"1",
            address=(address or b"").decode(),
            ledger_uid=(uid or b"").decode(),
            last_sequence=int(base or 0) + int(length),
            compacted=int(base or 0),
        )

    def claim(self, seen: Term, address: str) -> None:
        """Make `open` depend on what was seen."""
        self._seen, self._advertised = seen, address

    def renew(self, epoch: int) -> None:
        """Count one more beat of the term."""
        self._say(redis_scripts.RENEW, epoch)

    def release(self, epoch: int) -> None:
        """Mark the term as let go."""
        self._say(redis_scripts.RELEASE, epoch)

    def _say(self, script: str, epoch: int) -> None:
        try:
            self._answers.expect_ok(self._term_calls.script(script, self._keys, (epoch,), repeat=True))
        except LostError as exc:
            raise self._answers.unavailable(str(exc)) from None
