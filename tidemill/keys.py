"""API keys: how they look, how they are stored, how one is made.

A key is `tm_live_<id>_<secret>`: 80 public random bits that find its record, and 160 secret ones. The file keeps
HMAC-SHA-256 of the whole key under a pepper that lies elsewhere, so neither a copied file nor a leaked pepper alone
lets anyone test guesses.
"""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from tidemill.errors import Reason, TidemillError
from tidemill.names import check_tenant

# Version 1 had no scopes, ends or revocations; a build that reads no more than that must not ignore them.
FILE_VERSION = 2
KEY_PREFIX = "tm_live_"
MIN_PEPPER_BYTES = 16
_ID_BYTES = 10
_SECRET_BYTES = 20
_ID = re.compile(r"[a-z2-7]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(KEY_PREFIX + r"([a-z2-7]{16})_([a-z2-7]{32})")


class Scope(StrEnum):
    """What a key may be used for."""

    SUBMIT = "submit"
    """Create, fill, change, cancel and delete jobs."""
    READ = "read"
    """See jobs, results, models and quotas."""
    FEED = "feed"
    """Read the feed of accepted and finished jobs."""
    ADMIN = "admin"
    """Change models, and the jobs of every tenant."""


COMMON_SCOPES = (Scope.SUBMIT, Scope.READ, Scope.FEED)
"""What a key may do unless it is made for less or for more."""
ALL_SCOPES = tuple(Scope)


@dataclass(frozen=True)
class KeyRecord:
    """A stored key. Times are RFC 3339; an empty one stands for never.

    Attributes:
        id: its public id, which a rotation keeps.
        tenant: whose it is.
        hash: hex HMAC of the whole key.
        create_time: when it was made.
        scopes: what it may be used for.
        expire_time: when it stops working.
        previous_hash: that of the secret before the last rotation, which works until `previous_expire_time`.
        rotate_time: when that rotation was.
        revoke_time: since when it works no more.
    """

    id: str
    tenant: str
    hash: str
    create_time: str
    scopes: tuple[Scope, ...] = COMMON_SCOPES
    expire_time: str = ""
    previous_hash: str = ""
    previous_expire_time: str = ""
    rotate_time: str = ""
    revoke_time: str = ""

    @property
    def admin(self) -> bool:
        """Whether it may do what only the operator may."""
        return Scope.ADMIN in self.scopes

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return _passed(self.expire_time, now)

    def hashes(self, now: datetime) -> tuple[str, ...]:
        """The hashes of the secrets that work now; none of a revoked or expired key."""
        if self.revoke_time or self.expired(now):
            return ()
        if self.previous_hash and not _passed(self.previous_expire_time, now):
            return (self.hash, self.previous_hash)
        return (self.hash,)


def create_key(
    path: Path,
    pepper: str,
    tenant: str,
    *,
    admin: bool = False,
    scopes: Iterable[Scope] = (),
    lifetime: timedelta | None = None,
) -> str:
    """Make a key for `tenant`, store its hash in `path` (mode 0600) and return the key, which cannot be shown again.

    Args:
        path: the keys file; it and its folder are made when missing.
        pepper: the secret under which keys are hashed.
        tenant: whose key.
        admin: with every scope, so that it may change models, and jobs of other tenants too.
        scopes: what it may be used for; by default submit, read and feed.
        lifetime: after so long it stops working.

    Raises INVALID_NAME for a malformed tenant and INVALID_ARGUMENT for a short pepper or an unreadable file.
    """
    check_tenant(tenant)
    check_pepper(pepper)
    public_id, now = _random_text(_ID_BYTES), datetime.now(UTC)
    key = f"{KEY_PREFIX}{public_id}_{_random_text(_SECRET_BYTES)}"
    granted = ALL_SCOPES if admin else tuple(scope for scope in Scope if scope in set(scopes)) or COMMON_SCOPES
    expire_time = _text(now + lifetime) if lifetime is not None else ""
    record = KeyRecord(public_id, tenant, hash_key(pepper, key), _text(now), granted, expire_time)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        _write(path, [*list_keys(path), record])
    return key


def rotate_key(path: Path, pepper: str, public_id: str, overlap: timedelta) -> str:
    """Give the key a new secret and return the new key; the old one works for `overlap` more.

    One older still stops working at once. Raises KEY_NOT_FOUND, and INVALID_ARGUMENT for a key that works no more.
    """
    check_pepper(pepper)
    key, now = f"{KEY_PREFIX}{public_id}_{_random_text(_SECRET_BYTES)}", datetime.now(UTC)

    def rotated(record: KeyRecord) -> KeyRecord:
        if not record.hashes(now):
            state = "was revoked" if record.revoke_time else f"expired at {record.expire_time}"
            raise TidemillError(
                Reason.INVALID_ARGUMENT, f"key {public_id} {state}; make another one with `tidemill keys create`"
            )
        return replace(
            record,
            hash=hash_key(pepper, key),
            previous_hash=record.hash,
            previous_expire_time=_text(now + overlap),
            rotate_time=_text(now),
        )

    _change(path, public_id, rotated)
    return key


def revoke_key(path: Path, public_id: str) -> KeyRecord:
    """End a key for good; its record stays. Repeating it changes nothing. Raises KEY_NOT_FOUND."""
    now = _text(datetime.now(UTC))
    return _change(path, public_id, lambda record: replace(record, revoke_time=record.revoke_time or now))


def list_keys(path: Path) -> list[KeyRecord]:
    """The keys in `path`, oldest first; none without such a file. INVALID_ARGUMENT when it is not a keys file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise TidemillError(
            Reason.INVALID_ARGUMENT, f"cannot read the keys file {path}: {exc.strerror}", metadata={"path": path}
        ) from exc
    try:
        fields = json.loads(content)
        if fields["version"] not in (1, FILE_VERSION):
            raise ValueError(f"its version is {fields['version']!r}, this build reads 1 to {FILE_VERSION}")
        return [_record(item) for item in fields["keys"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise TidemillError(
            Reason.INVALID_ARGUMENT, f"{path} is not a keys file: {exc}", metadata={"path": path}
        ) from exc


def key_id(key: str) -> str | None:
    """The public id in `key`; None when it does not look like a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def hash_key(pepper: str, key: str) -> str:
    """What is stored of `key`: hex HMAC-SHA-256 under `pepper`."""
    return hmac.new(pepper.encode(), key.encode(), hashlib.sha256).hexdigest()


def check_pepper(pepper: str) -> str:
    """Return `pepper`, or raise INVALID_ARGUMENT when it is too short to be a secret."""
    if len(pepper.encode()) < MIN_PEPPER_BYTES:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"the key pepper has fewer than {MIN_PEPPER_BYTES} bytes: set TIDEMILL_GATEWAY_KEY_PEPPER to a random "
            "value, for instance of `openssl rand -hex 32`",
        )
    return pepper


def _random_text(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().lower()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _passed(time: str, now: datetime) -> bool:
    return bool(time) and datetime.fromisoformat(time) <= now


def _record(item: Any) -> KeyRecord:
    required = {name: item[name] for name in ("id", "tenant", "hash", "create_time")}
    times = {name: item.get(name, "") for name in ("expire_time", "previous_expire_time", "rotate_time", "revoke_time")}
    previous = item.get("previous_hash", "")
    if not all(isinstance(value, str) for value in (*required.values(), *times.values(), previous)):
        raise ValueError("a key's fields must be strings")
    for value in filter(None, times.values()):
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"the time {value!r} has no time zone")
    if not all(_HASH.fullmatch(value) for value in (required["hash"], previous or required["hash"])):
        raise ValueError("a key's hash must be 64 hex digits")
    return KeyRecord(**required, **times, previous_hash=previous, scopes=_scopes(item))


def _scopes(item: Any) -> tuple[Scope, ...]:
    if "scopes" in item:
        return tuple(Scope(scope) for scope in item["scopes"])
    # Files of version 1 knew common keys and admin keys, and at first not even those.
    admin = item.get("admin", False)
    if not isinstance(admin, bool):
        raise ValueError("a key's admin flag must be true or false")
    return ALL_SCOPES if admin else COMMON_SCOPES


def _change(path: Path, public_id: str, change: Callable[[KeyRecord], KeyRecord]) -> KeyRecord:
    if not path.exists():
        raise _not_found(path, public_id)
    with _locked(path):
        records = list_keys(path)
        changed = [change(record) if record.id == public_id else record for record in records]
        found = next((record for record in changed if record.id == public_id), None)
        if found is None:
            raise _not_found(path, public_id)
        _write(path, changed)
    return found


def _not_found(path: Path, public_id: str) -> TidemillError:
    # Somebody may have given the whole key: it is not repeated.
    shown = repr(public_id) if _ID.fullmatch(public_id) else "of that id"
    return TidemillError(
        Reason.KEY_NOT_FOUND,
        f"no key {shown} in {path}; `tidemill keys list` shows the ids, the 16 characters behind {KEY_PREFIX}",
        metadata={"path": path},
    )


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    # Two commands that add a key at once must not lose one of them.
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, records: list[KeyRecord]) -> None:
    content = json.dumps({"version": FILE_VERSION, "keys": [asdict(record) for record in records]}, indent=1)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
