"""What is hashed, and how: every SHA-256 that Tidemill stores is defined here.

Each digest starts with a name of its own, so that equal bytes in different roles never share a digest.
"""

import hashlib
import struct
from collections.abc import Iterable

SCHEMA_VERSION = "tidemill.dataset.v1"
SHA256_BYTES = 32
_ROW = b"tidemill.row.v1\0"


def sha256(data: bytes) -> bytes:
    """Plain SHA-256, used for whole files."""
    return hashlib.sha256(data).digest()


def id_hash(custom_id: str) -> bytes:
    """16 bytes that stand for a custom id in a segment's sidecar."""
    return hashlib.sha256(custom_id.encode()).digest()[:16]


def row_digest(custom_id: str, request: bytes) -> bytes:
    """Digest of an input row; `request` is the stored bytes, never a re-encoding."""
    key = custom_id.encode()
    return hashlib.sha256(_ROW + struct.pack(">I", len(key)) + key + request).digest()


def id_hashes(keys: Iterable[bytes]) -> list[bytes]:
    """`id_hash` of custom ids given as UTF-8, in one pass."""
    sha = hashlib.sha256
    return [sha(key).digest()[:16] for key in keys]


def row_digests(keys: Iterable[bytes], requests: Iterable[bytes]) -> list[bytes]:
    """`row_digest` of rows whose custom ids are given as UTF-8, in one pass."""
    sha, length = hashlib.sha256, struct.Struct(">I").pack
    pairs = zip(keys, requests, strict=True)
    return [sha(_ROW + length(len(key)) + key + request).digest() for key, request in pairs]


def output_digest(text: str) -> bytes:
    """Digest of a model's answer that is text and no more."""
    return hashlib.sha256(b"tidemill.output.v1\0" + text.encode()).digest()


def answer_digest(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Digest of any other answer: its parts in order, each with a tag of one byte; see `tidemill.outputs`."""
    digest = hashlib.sha256(b"tidemill.answer.v1\0")
    for tag, data in parts:
        digest.update(tag + struct.pack(">Q", len(data)) + data)
    return digest.digest()


def error_digest(code: str) -> bytes:
    """Digest of a row that ended without an answer: its code counts, the wording does not."""
    return hashlib.sha256(b"tidemill.error.v1\0" + code.encode()).digest()


def output_leaf(row_index: int, custom_id: str, status: int, digest: bytes) -> bytes:
    """Merkle leaf of a result row. `status` is the number of the `RowStatus`."""
    key = custom_id.encode()
    return struct.pack(">QI", row_index, len(key)) + key + struct.pack(">B", status) + digest


def spec_digest(fields: bytes) -> bytes:
    """Digest of what a job asked for; `fields` is canonical JSON, see `tidemill.encoding.encode_spec`."""
    return hashlib.sha256(b"tidemill.spec.v1\0" + fields).digest()


INPUT_SPEC = spec_digest(b"")
"""Specification digest of an input dataset: rows alone make its version."""


def data_version(spec: bytes, count: int, root: bytes) -> bytes:
    """Version of a dataset: its schema, specification, number of rows and Merkle root in row order."""
    return hashlib.sha256(SCHEMA_VERSION.encode() + b"\0" + spec + struct.pack(">Q", count) + root).digest()
