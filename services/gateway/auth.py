"""Who calls: API keys in the `authorization` metadata, checked against the keys file."""

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill import names, telemetry
from tidemill.errors import Reason, TidemillError
from tidemill.keys import KeyRecord, hash_key, key_id, list_keys

log = telemetry.logger(__name__)

# Stands in for the record of an unknown id, so that looking for ids takes as long as guessing secrets.
_NO_RECORD = KeyRecord(id="", tenant="", hash="0" * 64, create_time="")


@dataclass(frozen=True)
class Principal:
    """The caller: its tenant, the public id of its key, and whether it may act as the operator."""

    tenant: str
    key_id: str
    admin: bool = False

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

    def require_admin(self, action: str) -> None:
        """PERMISSION_DENIED unless the key is an admin key."""
        if not self.admin:
            raise TidemillError(
                Reason.PERMISSION_DENIED,
                f"{action} needs an admin key; the operator makes one with `tidemill keys create --admin`",
                metadata={"action": action, "key": self.key_id},
            )


class Authenticator:
    """Checks keys against a file, which is read again when it changes."""

    def __init__(self, keys_file: Path, pepper: str) -> None:
        self._path = keys_file
        self._pepper = pepper
        self._version: tuple[int, ...] | None = None
        self._records: dict[str, KeyRecord] = {}
        self._refresh()

    def authenticate(self, metadata: Iterable[tuple[str, Any]]) -> Principal:
        """The caller behind a call's metadata; API_KEY_MISSING or API_KEY_INVALID."""
        key = _bearer(metadata)
        public_id = key_id(key)
        if public_id is None:
            raise TidemillError(
                Reason.API_KEY_INVALID, "the API key is malformed: keys look like tm_live_<id>_<secret>"
            )
        self._refresh()
        record = self._records.get(public_id, _NO_RECORD)
        matches = hmac.compare_digest(hash_key(self._pepper, key), record.hash)
        if not matches or record is _NO_RECORD:
            raise TidemillError(Reason.API_KEY_INVALID, "the API key is unknown or was revoked")
        return Principal(record.tenant, record.id, record.admin)

    def _refresh(self) -> None:
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
    except FileNotFoundError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
