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
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill.errors import Reason, TidemillError
from tidemill.names import check_tenant

FILE_VERSION = 1
MIN_PEPPER_BYTES = 16
_ID_BYTES = 10
_SECRET_BYTES = 20
_HASH = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"tm_live_([a-z2-7]{16})_([a-z2-7]{32})")


@dataclass(frozen=True)
class KeyRecord:
    """A stored key: its public id, whose it is, the hex HMAC of the whole key, when it was made (RFC 3339), and whether
    it may do what only the operator may."""

    id: str
    tenant: str
    hash: str
    create_time: str
    admin: bool = False


def create_key(path: Path, pepper: str, tenant: str, *, admin: bool = False) -> str:
    """Make a key for `tenant`, store its hash in `path` (mode 0600) and return the key, which cannot be shown again.

    An `admin` key may also drain and pin models, requeue chunks and fail jobs, those of other tenants too.

    Raises INVALID_NAME for a malformed tenant and INVALID_ARGUMENT for a short pepper or an unreadable file.
    """
    check_tenant(tenant)
    check_pepper(pepper)
    key_id, secret = _random_text(_ID_BYTES), _random_text(_SECRET_BYTES)
    key = f"tm_live_{key_id}_{secret}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = KeyRecord(key_id, tenant, hash_key(pepper, key), now, admin)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        _write(path, [*list_keys(path), record])
    return key


def list_keys(path: Path) -> list[KeyRecord]:
    """The keys in `path`, oldest first; none without such a file. INVALID_ARGUMENT when it is not a keys file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        fields = json.loads(content)
        if fields["version"] != FILE_VERSION:
            raise ValueError(f"its version is {fields['version']!r}, this build reads {FILE_VERSION}")
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


def _record(item: Any) -> KeyRecord:
    names = ("id", "tenant", "hash", "create_time")
    if not all(isinstance(item[name], str) for name in names):
        raise ValueError("a key's fields must be strings")
    if not _HASH.fullmatch(item["hash"]):
        raise ValueError("a key's hash must be 64 hex digits")
    # Files of earlier versions do not say; their keys are not admin keys.
    admin = item.get("admin", False)
    if not isinstance(admin, bool):
        raise ValueError("a key's admin flag must be true or false")
    return KeyRecord(**{name: item[name] for name in names}, admin=admin)


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
