"""The ledger of the clustered mode: a list in one Redis, with `appendfsync always`. Every Redis call is here.

A reply of such a Redis leaves after the fsync of what it answers, so what a script returned is durable. An append whose
reply is lost is settled: a script reads the tail and bars the attempt, so it is either found stored or never will be.
"""

import uuid
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from services.scheduler.ledger import frames, redis_safety, redis_scripts
from services.scheduler.ledger.base import Opened, check_numbering, fenced
from services.scheduler.ledger.redis_address import RedisAddress
from services.scheduler.ledger.terms import Term
from tidemill import telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import ledger_pb2

log = telemetry.logger(__name__)

FORMAT = "1"
CONNECT_SECONDS = 1.0
CALL_SECONDS = 3.0
"""A socket silent for so long has failed: an fsync on a busy disk may take a second or two."""
TERM_SECONDS = 1.0
"""The same for calls about the term, which have to be tried again within it."""

_TERM_FIELDS = ("epoch", "beat", "released", "address", "uid", "base")


class RedisLedger:
    """Events as frames in a list, facts about the ledger in a hash, under one hash tag."""

    def __init__(self, address: RedisAddress, *, vouched: bool = False) -> None:
        """`vouched`: the operator says that Redis is set up right where its settings cannot be read."""
        self.address = address
        self._vouched = vouched
        tag = f"{{tidemill:{address.name}}}"
        self._keys = [f"{tag}:events", f"{tag}:meta"]
        self._damaged = f"{tag}:damaged"
        self._calls = _Calls(address, CALL_SECONDS)
        self._term_calls = _Calls(address, TERM_SECONDS)
        self._seen: Term | None = None
        self._advertised = ""
        self._epoch = 0
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
        except _LostError as exc:
            raise self._unavailable(str(exc)) from None
        match answer:
            case [b"ok", int(epoch), bytes(uid), int(last), bytes(frame)]:
                self._epoch, self._attempt, self._doubt = epoch, 0, None
                repaired = self._set_aside_damaged_tail(epoch, last, frame)
                return Opened(epoch, uid.decode(), last - bool(repaired), repaired)
            case [b"beaten", int(epoch)]:
                raise TidemillError(Reason.NOT_LEADER, f"another scheduler leads (epoch {epoch})", retry_after=1.0)
            case [b"format", bytes(found)]:
                raise self._corrupt(f"its format is {found.decode(errors='replace')}, and this version reads {FORMAT}")
            case _:
                raise self._corrupt(f"it has events in {self._keys[0]} and no facts in {self._keys[1]}")

    def check(self) -> None:
        """Refuse a Redis that may lose events. Raises TidemillError: LEDGER_UNSAFE, or UNAVAILABLE."""
        try:
            redis_safety.check_version(self._calls.version())
            redis_safety.check_settings(self._calls.settings())
        except _ForbiddenError as exc:
            if not self._vouched:
                raise redis_safety.unknown_settings(str(exc)) from None

    def _set_aside_damaged_tail(self, epoch: int, last: int, frame: bytes) -> str:
        if not last or not frame or not (why := frames.damage(frame, last)):
            return ""
        try:
            self._expect_ok(self._calls.script(redis_scripts.SET_ASIDE, [*self._keys, self._damaged], (epoch, last)))
        except _LostError as exc:
            raise self._unavailable(str(exc)) from None
        return f"record {last}, the last one, was damaged ({why}) and is kept in the list {self._damaged}"

    def append(self, epoch: int, expected_sequence: int, events: Sequence[ledger_pb2.LedgerEvent]) -> int:
        """Store `events` by one script, whose reply follows the fsync."""
        check_numbering(expected_sequence, events)
        self._settle()
        self._attempt += 1
        packed = [frames.pack(event) for event in events]
        arguments = (str(epoch), str(expected_sequence), str(self._attempt), *packed)
        try:
            self._expect_ok(self._calls.script(redis_scripts.APPEND, self._keys, arguments))
        except _LostError as exc:
            self._doubt = (epoch, packed)
            if not self._settle():
                raise self._write_failed(str(exc)) from None
        return expected_sequence + len(packed)

    def _settle(self) -> bool:
        """Find out whether the append in doubt is stored; afterwards it is, or never will be."""
        if self._doubt is None:
            return False
        epoch, packed = self._doubt
        arguments = (str(epoch), str(self._attempt), str(len(packed)))
        try:
            answer = self._calls.script(redis_scripts.SETTLE, self._keys, arguments)
        except _LostError as exc:
            raise self._write_failed(str(exc)) from None
        self._expect_ok(answer)
        self._doubt = None
        stored = answer[2] == packed
        log.warning("the reply to an append was lost", stored=stored, events=len(packed))
        return stored

    def read(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """At most `limit` events above `after`, each checked; what is in doubt is settled first."""
        self._settle()
        return self._read(self._calls, after, limit)

    def _read(self, calls: "_Calls", after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        try:
            answer = calls.script(redis_scripts.READ, self._keys, (after, limit), repeat=True)
        except _LostError as exc:
            raise self._unavailable(str(exc)) from None
        match answer:
            case [b"ok", list(found)]:
                return [
                    self._checked(frame, number) for number, frame in enumerate(cast("list[bytes]", found), after + 1)
                ]
            case _:
                raise self._corrupt(f"record {after + 1} is missing")

    def _checked(self, frame: bytes, sequence: int) -> ledger_pb2.LedgerEvent:
        if why := frames.damage(frame, sequence):
            raise self._corrupt(f"record {sequence} is damaged ({why})")
        return frames.unpack(frame)

    def close(self) -> None:
        """Let go of the connections; the term, where there is one, is released by `release`."""
        self._calls.close()
        self._term_calls.close()

    # The term, called from another thread than the rest.

    def follow(self, after: int, limit: int) -> list[ledger_pb2.LedgerEvent]:
        """As `read`, for a scheduler that does not lead."""
        return self._read(self._term_calls, after, limit)

    def term(self) -> Term:
        """Who leads, as Redis knows it."""
        try:
            epoch, beat, released, address, uid, base, length = self._term_calls.facts(self._keys, _TERM_FIELDS)
        except _LostError as exc:
            raise self._unavailable(str(exc)) from None
        return Term(
            epoch=int(epoch or 0),
            beat=int(beat or 0),
            released=released == b"1",
            address=(address or b"").decode(),
            ledger_uid=(uid or b"").decode(),
            last_sequence=int(base or 0) + int(length),
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
            self._expect_ok(self._term_calls.script(script, self._keys, (epoch,), repeat=True))
        except _LostError as exc:
            raise self._unavailable(str(exc)) from None

    def _expect_ok(self, answer: list[Any]) -> None:
        match answer:
            case [b"ok", *_]:
                return
            case [b"sequence", int(last)]:
                raise fenced(f"{self.address} ends at {last}, and this scheduler thought otherwise")
            case [b"epoch", b""]:
                raise fenced(f"{self.address} is gone; is this another Redis, or was it emptied?")
            case [b"epoch", bytes(current)]:
                raise fenced(f"epoch {current.decode()} leads in {self.address}")
            case _:
                raise self._write_failed(f"it answered {answer!r}")

    def _write_failed(self, why: str) -> TidemillError:
        return TidemillError(
            Reason.LEDGER_WRITE_FAILED,
            f"the ledger {self.address} could not be written ({why}); check that Redis",
            retry_after=1.0,
        )

    def _unavailable(self, why: str) -> TidemillError:
        return TidemillError(
            Reason.UNAVAILABLE, f"the ledger {self.address} does not answer ({why}); check that Redis", retry_after=1.0
        )

    def _corrupt(self, why: str) -> TidemillError:
        return TidemillError(
            Reason.LEDGER_CORRUPT,
            f"the ledger {self.address} is not trusted: {why}; restore it from a backup",
            metadata={"ledger": self.address},
        )


class _LostError(Exception):
    """No reply, or one that says nothing about what was done."""


class _ForbiddenError(Exception):
    """This Redis does not let us look."""


class _Calls:
    """Connections with one timeout. Nothing is repeated unasked: a repeated append would fence its own writer."""

    def __init__(self, address: RedisAddress, seconds: float) -> None:
        self._address = address
        self._redis: Any = redis.Redis(
            host=address.host,
            port=address.port,
            db=address.database,
            username=address.user or None,
            password=address.password or None,
            ssl=address.tls,
            ssl_ca_certs=address.ca or None,
            socket_timeout=seconds,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            max_connections=4,
        )
        self._scripts: dict[str, Any] = {}

    def script(self, text: str, keys: list[str], arguments: Sequence[Any], *, repeat: bool = False) -> list[Any]:
        """Run a script. With `repeat`, a broken connection is tried once more: Redis may have been restarted."""
        script = self._scripts.get(text) or self._scripts.setdefault(text, self._redis.register_script(text))

        def run() -> list[Any]:
            return script(keys=keys, args=arguments)

        try:
            return self._permitted(run)
        except _LostError:
            if not repeat:
                raise
            return self._permitted(run)

    def _permitted(self, call: Any) -> Any:
        try:
            return self._guarded(call)
        except _ForbiddenError as exc:
            raise TidemillError(
                Reason.LEDGER_UNSAFE,
                f"the user may not use the ledger {self._address} ({exc}); allow it: `ACL SETUSER <user> "
                "~{tidemill:*}* +@read +@write +@scripting +@connection +@transaction +info +config|get`",
            ) from None

    def facts(self, keys: list[str], names: Sequence[str]) -> list[Any]:
        """Fields of the hash, and the length of the list, of one moment."""

        def read() -> list[Any]:
            pipe = self._redis.pipeline(transaction=True)
            found, length = pipe.hmget(keys[1], names).llen(keys[0]).execute()
            return [*found, length]

        return self._permitted(read)

    def version(self) -> str:
        """Version of the server."""
        found: dict[str, Any] = self._asked(lambda: self._redis.info("server"))
        return str(found.get("redis_version", "0"))

    def settings(self) -> dict[str, str]:
        """The settings that matter."""
        return self._asked(lambda: self._redis.config_get(*redis_safety.SETTINGS))

    def _asked(self, ask: Any) -> Any:
        try:
            return self._guarded(ask)
        except _LostError as exc:
            raise TidemillError(
                Reason.UNAVAILABLE, f"the ledger {self._address} does not answer ({exc})", retry_after=1.0
            ) from None

    def _guarded(self, call: Any) -> Any:
        """Turn Redis's errors into ours; none of them repeats a password."""
        try:
            return call()
        except OutOfMemoryError:
            raise TidemillError(
                Reason.LEDGER_FULL,
                f"the ledger {self._address} is full: Redis has reached its maxmemory; raise it "
                "(`redis-cli CONFIG SET maxmemory <bytes>`) or free memory there",
                retry_after=5.0,
            ) from None
        except AuthenticationError as exc:
            raise TidemillError(
                Reason.LEDGER_UNSAFE,
                f"Redis at {self._address} refused the login ({exc}); check the user in TIDEMILL_SCHEDULER_LEDGER and "
                "TIDEMILL_SCHEDULER_LEDGER_PASSWORD",
            ) from None
        except NoPermissionError as exc:
            raise _ForbiddenError(str(exc)) from None
        except ResponseError as exc:
            if "unknown command" in str(exc).lower():
                raise _ForbiddenError(str(exc)) from None
            raise _LostError(str(exc)) from None
        except (ConnectionError, RedisError, OSError) as exc:
            self._redis.connection_pool.disconnect()
            raise _LostError(f"{type(exc).__name__}: {exc}") from None

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._redis.close()
