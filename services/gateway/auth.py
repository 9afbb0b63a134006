"""Who calls: API keys in the `authorization` metadata, checked against the keys file."""

import hmac
import os
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill import names, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.key_use import note_uses
from tidemill.keys import KeyRecord, Scope, hash_key, key_id, list_keys

log = telemetry.logger(__name__)

# Stands in for the record of an unknown id, so that looking for ids takes as long as guessing secrets.
_NO_RECORD = KeyRecord(id="", tenant="", hash="0" * 64, create_time="")


@dataclass(frozen=True)
class Principal:
    """The caller: its tenant, the public id of its key, what the key may be used for, and the hash of its secret."""

    tenant: str
    key_id: str
    scopes: tuple[Scope, ...]
    secret_hash: str = field(repr=False)

    def job(self, name: str) -> names.JobName:
        """The job of that name; JOB_NOT_FOUND when it is another tenant's."""
        job = names.parse_job(name)
        if job.tenant != self.tenant:
            raise TidemillError(Reason.JOB_NOT_FOUND, f"job {name} does not exist", metadata={"job": name})
        return job

    def check_parent(self, parent: str) -> None:
        """Accept an empty parent or the caller's own; another tenant's is NOT_FOUND."""
        if parent and names.parse_parent(parent) != self.tenant:
            raise TidemillError(Reason.JOB_NOT_FOUND, f"{parent} does not exist", metadata={"parent": parent})

    def require(self, scope: Scope, action: str) -> None:
        """PERMISSION_DENIED unless the key has the scope."""
        if scope in self.scopes:
            return
        command = f"tidemill keys create --tenant {self.tenant} --scope {scope}"
        raise TidemillError(
            Reason.PERMISSION_DENIED,
            f"{action} needs the scope {scope}, which the key {self.key_id} lacks (it has {', '.join(self.scopes)}); "
            f"the operator makes a key that has it with `{command}`",
            metadata={"action": action, "key": self.key_id, "scope": scope},
        )


caller: ContextVar[Principal] = ContextVar("caller")
"""Who makes the call that is being handled."""


class Authenticator:
    """Checks keys against a file, which is read again when it changes."""

    def __init__(self, keys_file: Path, pepper: str) -> None:
        self._path = keys_file
        self._pepper = pepper
        self._version: tuple[int, ...] | None = None
        self._records: dict[str, KeyRecord] = {}
        self._uses: dict[str, str] = {}
        self.refresh()

    def authenticate(self, metadata: Iterable[tuple[str, Any]]) -> Principal:
        """The caller behind a call's metadata; API_KEY_MISSING or API_KEY_INVALID."""
        key = _bearer(metadata)
        public_id = key_id(key)
        if public_id is None:
            raise TidemillError(
                Reason.API_KEY_INVALID, "the API key is malformed: keys look like tm_live_<id>_<secret>"
            )
        self.refresh()
        now = datetime.now(UTC)
        record = self._records.get(public_id, _NO_RECORD)
        secret_hash = hash_key(self._pepper, key)
        # Every hash is compared, whatever the first comparison said.
        matches = [hmac.compare_digest(secret_hash, known) for known in record.hashes(now) or (_NO_RECORD.hash,)]
        if not any(matches) or record is _NO_RECORD:
            raise _unknown()
        self._uses[record.id] = now.isoformat(timespec="seconds")
        return Principal(record.tenant, record.id, record.scopes, secret_hash)

    def check_still(self, principal: Principal, scope: Scope, action: str) -> None:
        """Raise what a caller with an open call would get for a new one; the file is as `refresh` last found it."""
        record = self._records.get(principal.key_id, _NO_RECORD)
        if principal.tenant != record.tenant or principal.secret_hash not in record.hashes(datetime.now(UTC)):
            raise _unknown()
        Principal(record.tenant, record.id, record.scopes, principal.secret_hash).require(scope, action)

    def write_uses(self) -> None:
        """Write down when keys were used since the last time; what cannot be written is tried again. Blocks."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            note_uses(self._path, uses)
        except OSError as exc:
            self._uses = {**uses, **self._uses}
            log.warning("uses of keys not written", path=str(self._path), error=str(exc))

    def refresh(self) -> None:
        """Read the file if it changed."""
        version = _file_version(self._path)
        if version == self._version:
            return
        try:
            records = list_keys(self._path)
        except TidemillError as exc:
            # A half-edited file must not lock everybody out; the keys read before stay in force.
            log.warning("keys file refused", path=str(self._path), error=exc.message)
        else:
            self._records = {record.id: record for record in records}
        self._version = version


def _unknown() -> TidemillError:
    return TidemillError(Reason.API_KEY_INVALID, "the API key is unknown, expired or revoked")


def _bearer(metadata: Iterable[tuple[str, Any]]) -> str:
    values = [value for name, value in metadata if name == "authorization" and isinstance(value, str)]
    if not values:
        raise TidemillError(Reason.API_KEY_MISSING, "no API key: send the metadata `authorization: Bearer <API key>`")
    scheme, _, key = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise TidemillError(
            Reason.API_KEY_INVALID, "the authorization metadata is malformed: send `Bearer <API key>` once"
        )
    return key.strip()


def _file_version(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
