"""Every call to Redis: scripts, and the few questions around them, with errors of ours."""

from collections.abc import Sequence
from typing import Any

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

from services.scheduler.ledger import redis_safety
from services.scheduler.ledger.redis_address import RedisAddress
from tidemill.errors import Reason, TidemillError

CONNECT_SECONDS = 1.0


class LostError(Exception):
    """No reply, or one that says nothing about what was done."""


class ForbiddenError(Exception):
    """This Redis does not let us look."""


class Calls:
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
        except LostError:
            if not repeat:
                raise
            return self._permitted(run)

    def _permitted(self, call: Any) -> Any:
        try:
            return self._guarded(call)
        except ForbiddenError as exc:
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

    def matching(self, pattern: str) -> list[str]:
        """Keys that fit a pattern. Looks at every key of the database: for repairs only."""
        escaped = pattern.replace("[", r"\[")
        return self._permitted(lambda: [key.decode() for key in self._redis.scan_iter(match=escaped, count=1000)])

    def rename(self, key: str, name: str) -> None:
        """Give a key another name."""
        self._permitted(lambda: self._redis.rename(key, name))

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
        except LostError as exc:
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
            raise ForbiddenError(str(exc)) from None
        except ResponseError as exc:
            if "unknown command" in str(exc).lower():
                raise ForbiddenError(str(exc)) from None
            raise LostError(str(exc)) from None
        except (ConnectionError, RedisError, OSError) as exc:
            self._redis.connection_pool.disconnect()
            raise LostError(f"{type(exc).__name__}: {exc}") from None

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._redis.close()
