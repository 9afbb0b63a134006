"""Which files clients may have read or written: URIs below roots that the operator allows, and nothing else.

A URI is taken as it is written: no percent-encoding, no `..`, no query; links below a root are not followed.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.store.s3_address import S3Address, parse_s3

MAX_URI_BYTES = 1024
_TENANT = "{tenant}"
_SCHEMES = ("file", "s3")


@dataclass(frozen=True)
class Existing:
    """A file that is there: SHA-256 of its bytes and its size."""

    sha256: bytes
    size_bytes: int


class Place(ABC):
    """A file by its URI, there or not. Methods block; faults of the file system are TidemillErrors.

    Attributes:
        uri: as the client wrote it.
        name: its last part.
    """

    uri: str
    name: str

    @abstractmethod
    def open(self, spool: Path, most_bytes: int) -> BinaryIO:
        """The file, from its start, as a regular file of this machine; FILE_NOT_FOUND or INVALID_FILE.

        What lies elsewhere is copied to a file in `spool` that has no name.
        """

    @abstractmethod
    def existing(self) -> Existing | None:
        """What lies there now."""

    @abstractmethod
    def write(self, content: BinaryIO, *, overwrite: bool) -> None:
        """Put all of `content` there, at once; FILE_EXISTS when something lies there that may not be replaced."""


@dataclass(frozen=True)
class Root:
    """A folder or bucket prefix, by its names; `bucket` is None for a folder."""

    parts: tuple[str, ...]
    bucket: S3Address | None = None

    def holds(self, bucket: str, parts: Sequence[str]) -> bool:
        """Whether a file of these names lies below it."""
        own = self.bucket.bucket if self.bucket else ""
        return own == bucket and len(parts) > len(self.parts) and tuple(parts[: len(self.parts)]) == self.parts


class Roots:
    """The roots that one setting allows.

    Args:
        text: URIs separated by commas; `{tenant}` in one stands for the caller's tenant.
        variable: the setting's environment variable, for messages.
    """

    def __init__(self, text: str, variable: str) -> None:
        self._texts = [item.strip() for item in text.split(",") if item.strip()]
        self._variable = variable

    def find(self, uri: str, tenant: str) -> Place:
        """The file that a client means by `uri`; INVALID_ARGUMENT or URI_NOT_ALLOWED."""
        from services.gateway.place_local import LocalPlace
        from services.gateway.place_s3 import S3Place

        bucket, parts = split_uri(uri)
        for text in self._texts:
            root = parse_root(text.replace(_TENANT, tenant))
            if root.holds(bucket, parts):
                if root.bucket:
                    return S3Place(uri, root.bucket, parts)
                return LocalPlace(uri, root.parts, parts[len(root.parts) :])
        raise self._not_allowed(uri)

    def _not_allowed(self, uri: str) -> TidemillError:
        problem = (
            f"{uri} does not lie below a folder or bucket prefix that {self._variable} allows"
            if self._texts
            else f"this gateway may touch no files: its operator names folders or bucket prefixes in {self._variable}"
        )
        metadata = {"uri": uri, "setting": self._variable}
        return TidemillError(Reason.URI_NOT_ALLOWED, problem, metadata=metadata)


def check_roots(text: str) -> str:
    """`text`, or ValueError when it is not a list of roots."""
    for item in text.split(","):
        if item.strip():
            try:
                parse_root(item.strip().replace(_TENANT, "tenant"))
            except TidemillError as exc:
                raise ValueError(exc.message) from None
    return text


def parse_root(uri: str) -> Root:
    """The root that the operator's `uri` names; INVALID_ARGUMENT."""
    if uri.startswith("s3://"):
        address = parse_s3(uri)
        return Root(tuple(address.prefix.split("/")) if address.prefix else (), address)
    parts = urlsplit(uri)
    names = tuple(name for name in unquote(parts.path).split("/") if name)
    if parts.scheme != "file" or parts.netloc or not names or ".." in names:
        raise _invalid(f"{uri[:200]!r} is not a root: use file:///folder or s3://bucket/prefix")
    return Root(names)


def split_uri(uri: str) -> tuple[str, tuple[str, ...]]:
    """The bucket (empty for a folder of this machine) and the names of a client's URI; INVALID_ARGUMENT."""
    if not uri or len(uri.encode()) > MAX_URI_BYTES:
        raise _invalid(f"must have 1 to {MAX_URI_BYTES} bytes")
    for character in uri:
        if character in "%?#\\" or not character.isprintable():
            raise _invalid(
                f"{character!r} is not accepted: write the path plainly, without encoding, query or fragment"
            )
    scheme, found, rest = uri.partition("://")
    if not found or scheme not in _SCHEMES:
        raise _invalid(f"scheme {scheme[:32]!r} is not supported; use file:///folder/file or s3://bucket/key")
    bucket, _, path = rest.partition("/")
    if (scheme == "file") != (not bucket):
        raise _invalid("names no file; use file:///folder/file or s3://bucket/key")
    names = tuple(path.split("/"))
    for name in names:
        if name in ("", ".", ".."):
            raise _invalid(f"has {name!r} between slashes; write the path plainly, without . or ..")
    return bucket, names


def not_found(uri: str) -> TidemillError:
    """No file lies there."""
    return TidemillError(Reason.FILE_NOT_FOUND, f"{uri} does not exist", metadata={"uri": uri})


def exists(uri: str) -> TidemillError:
    """A file lies there that may not be replaced."""
    return TidemillError(
        Reason.FILE_EXISTS,
        f"{uri} exists with other content: set `overwrite` to replace it, or choose another name",
        metadata={"uri": uri},
    )


def too_large(uri: str, size: int, most: int) -> TidemillError:
    """A file is larger than the operator allows."""
    return TidemillError(
        Reason.INVALID_FILE,
        f"{uri} has {size} bytes; at most {most} are read (TIDEMILL_GATEWAY_IMPORT_BYTES): split it",
        metadata={"uri": uri, "size_bytes": size, "limit": most},
    )


def unusable(uri: str, problem: str) -> TidemillError:
    """A file that cannot be used as it is."""
    return TidemillError(Reason.INVALID_FILE, f"{uri} {problem}", metadata={"uri": uri})


def place_failed(uri: str, problem: object) -> TidemillError:
    """What may go well another time."""
    return TidemillError(Reason.STORE_FAILED, f"{uri}: {problem}", metadata={"uri": uri}, retry_after=1.0)


def _invalid(description: str) -> TidemillError:
    return TidemillError(Reason.INVALID_ARGUMENT, f"uri {description}", violations=[FieldViolation("uri", description)])
