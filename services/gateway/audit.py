"""The audit log: one line for each call that changes something, refused ones too. Never keys, prompts or answers."""

import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from opentelemetry import trace

from tidemill import names, telemetry
from tidemill.errors import TidemillError
from tidemill.keys import KEY_PREFIX

log = telemetry.logger("tidemill.audit")

_FILE_BYTES = 32 << 20
_FILE_BACKUPS = 9
# What a caller chose freely is written only if it looks like an id.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


@dataclass
class Entry:
    """A line in the making.

    Attributes:
        method: `package.Service/Method`.
        peer: address of the caller.
        tenant, key: of the caller; empty before it is known.
        resource: the name that the call is about; empty where it has none that is well formed.
        request_id: as the caller gave it.
        outcome: `OK`, or the reason of the refusal.
    """

    method: str
    peer: str = ""
    tenant: str = ""
    key: str = ""
    resource: str = ""
    request_id: str = ""
    outcome: str = ""

    def note(self, message: Message) -> None:
        """Take up the names in a request or an answer."""
        self.resource = _resource(message) or self.resource
        create = getattr(message, "create", message)
        request_id = getattr(create, "request_id", "")
        if _REQUEST_ID.fullmatch(request_id) and KEY_PREFIX not in request_id:
            self.request_id = request_id


class AuditLog:
    """Writes lines to the logger `tidemill.audit`, or to a file of its own that is rotated by size."""

    def __init__(self, file: Path | None = None) -> None:
        self._file: RotatingFileHandler | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = _PrivateFiles(file, maxBytes=_FILE_BYTES, backupCount=_FILE_BACKUPS)

    def write(self, entry: Entry, outcome: str) -> None:
        """Write the line of a call that is over."""
        entry.outcome = outcome
        context = trace.get_current_span().get_span_context()
        trace_id = format(context.trace_id, "032x") if context.is_valid else ""
        fields = {**asdict(entry), "trace_id": trace_id}
        if self._file is None:
            log.info("audit", **fields)
            return
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})
        # What cannot be written, as on a full disk, is said on standard error and stops no call.
        self._file.handle(logging.LogRecord("tidemill.audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class _PrivateFiles(RotatingFileHandler):
    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding="utf-8", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _resource(message: Any) -> str:
    job = getattr(message, "job", "")
    candidates = [getattr(message, "name", ""), job if isinstance(job, str) else getattr(job, "name", "")]
    return next((name for name in candidates if _is_name(name)), "")


def _is_name(name: str) -> bool:
    for parse in (names.parse_job, names.parse_model):
        try:
            parse(name)
        except TidemillError:
            continue
        return KEY_PREFIX not in name
    return False
