"""The object store by URI: a folder (`file:///absolute/folder`) or S3 (`s3://bucket/prefix?endpoint=…&region=…`)."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidemill.errors import Reason, TidemillError
from tidemill.store.base import MARKER, ObjectStore, StoredFile
from tidemill.store.local import LocalStore

__all__ = ["MARKER", "ObjectStore", "StoredFile", "attach_store", "is_local", "open_store"]


def open_store(uri: str) -> ObjectStore:
    """The store behind `uri`, made where there is none; a bucket must exist."""
    store = attach_store(uri)
    store.create()
    return store


def attach_store(uri: str) -> ObjectStore:
    """The store behind `uri`, there or not: nothing is made, and every call says when it is away."""
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        from tidemill.store.s3 import S3Store
        from tidemill.store.s3_address import parse_s3

        return S3Store(parse_s3(uri))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return LocalStore(Path(unquote(parts.path)))
    raise TidemillError(
        Reason.INVALID_ARGUMENT,
        f"store {uri!r} is not supported: use file:///absolute/folder or s3://bucket/prefix",
        metadata={"store": uri},
    )


def is_local(uri: str) -> bool:
    """Whether the store is a folder, which other machines reach only when they mount it."""
    return urlsplit(uri).scheme == "file"
