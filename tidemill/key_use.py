"""When each API key was last used: a file beside the keys file, which gateways that share the keys share too.

It is written rarely and apart from the keys file, so that a gateway never touches what decides who may call. A lost
or broken file costs the times, nothing else.
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast


def use_file(keys_file: Path) -> Path:
    """Where the times for `keys_file` are."""
    return keys_file.with_name(f"{keys_file.name}.used")


def read_uses(keys_file: Path) -> dict[str, str]:
    """RFC 3339 time by key id; empty without such a file, or with a broken one."""
    try:
        fields: Any = json.loads(use_file(keys_file).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(fields, dict):
        return {}
    items = cast("dict[Any, Any]", fields).items()
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, str)}


def note_uses(keys_file: Path, uses: Mapping[str, str]) -> None:
    """Add times to the file; the later one of each key stays. Raises OSError."""
    path = use_file(keys_file)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_uses(keys_file)
        merged = {key: max(known.get(key, ""), uses.get(key, "")) for key in {**known, **uses}}
        _replace(path, json.dumps(merged, indent=1, sort_keys=True) + "\n")
    finally:
        os.close(lock)


def _replace(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
