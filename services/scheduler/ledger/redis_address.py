"""`redis://[user@]host[:port][/database][?name=…&ca=…]`, or `rediss://` for TLS: where a Redis ledger is."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

SCHEMES = ("redis", "rediss")
FORM = "redis://[user@]host[:port][/database][?name=LEDGER&ca=FILE]"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One ledger in one Redis.

    Attributes:
        host, port, database: the Redis.
        name: of the ledger: several may share a Redis.
        user: of an ACL; empty means Redis's default user.
        password: of that user; empty means none.
        tls: speak TLS and check the server's certificate.
        ca: file of the certificate authority; empty means the system's.
    """

    host: str
    port: int = 6379
    database: int = 0
    name: str = "default"
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""

    def __str__(self) -> str:
        """For messages: no secret is in it."""
        return f"redis{'s' if self.tls else ''}://{self.host}:{self.port}/{self.database}?name={self.name}"


def parse(url: str, password: str = "") -> RedisAddress:
    """The address that `url` gives.

    Raises:
        ValueError: it is none; the message does not repeat it, for it may hold a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError(f"must be `{FORM}` or `rediss://…`")
    if parts.password is not None:
        raise ValueError("must not hold a password: give it as TIDEMILL_SCHEDULER_LEDGER_PASSWORD")
    query = parse_qs(parts.query, keep_blank_values=True)
    if unknown := query.keys() - {"name", "ca"}:
        raise ValueError(f"has unknown parameters: {', '.join(sorted(unknown))}; name and ca are known")
    name = query.get("name", ["default"])[-1]
    if not _NAME.fullmatch(name):
        raise ValueError("name must be 1 to 63 of a-z, 0-9, `_` and `-`, and begin with a letter or digit")
    database = parts.path.strip("/") or "0"
    if not database.isdigit():
        raise ValueError("the database must be a number")
    return RedisAddress(
        host=parts.hostname,
        port=parts.port or 6379,
        database=int(database),
        name=name,
        user=unquote(parts.username or ""),
        password=password,
        tls=parts.scheme == "rediss",
        ca=query.get("ca", [""])[-1],
    )
