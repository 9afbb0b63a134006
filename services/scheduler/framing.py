"""How a blob of JSON values lies in a store: a magic, a SHA-256 over the rest, a JSON header, a compressed body."""

import hashlib
import json
import zlib
from typing import Any

VERSION = 1
"""Rises when older versions of the scheduler must not read what this one writes, though they know every field."""

_DIGEST_BYTES = 32
_LENGTH_BYTES = 4


class DamagedError(Exception):
    """The blob is not what was written."""


class NewerError(Exception):
    """The blob was written by a version that knows more than this one."""


def frame(magic: bytes, header: dict[str, Any], body: bytes) -> bytes:
    """One blob; `body` is compressed already."""
    head = json.dumps({"version": VERSION, **header}).encode()
    rest = len(head).to_bytes(_LENGTH_BYTES, "big") + head + body
    return magic + hashlib.sha256(rest).digest() + rest


def unframe(magic: bytes, blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and decompressed body of a blob; raises as `opened`."""
    header, body = opened(magic, blob)
    return header, zlib.decompress(body)


def opened(magic: bytes, blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and compressed body of a blob.

    Raises:
        DamagedError: a bit of it has changed, or some of it is missing.
        NewerError: a later version wrote it.
    """
    start = len(magic) + _DIGEST_BYTES
    if not blob.startswith(magic) or hashlib.sha256(blob[start:]).digest() != blob[len(magic) : start]:
        raise DamagedError("its checksum does not match")
    length = int.from_bytes(blob[start : start + _LENGTH_BYTES], "big")
    body = start + _LENGTH_BYTES + length
    header: dict[str, Any] = json.loads(blob[start + _LENGTH_BYTES : body])
    if header["version"] > VERSION:
        raise NewerError(f"it has version {header['version']}, and this scheduler reads {VERSION}")
    return header, blob[body:]
