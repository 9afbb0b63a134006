"""What every object store does: immutable files by key, whole and durable or not at all."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.errors import Reason, TidemillError

MARKER = ".tidemill-store"
"""Lies at the root of every store: an empty mount point or bucket is not taken for a store that lost its files."""

_HASHED_AT_A_TIME = 1 << 20
_RETRY_SECONDS = 1.0
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(/[A-Za-z0-9][A-Za-z0-9._=-]*)*")


@dataclass(frozen=True)
class StoredFile:
    """A file that was written: its key, SHA-256 and size in bytes."""

    key: str
    sha256: bytes
    size_bytes: int


class ObjectStore(ABC):
    """Files by key. Blocking; safe to use from several threads.

    Every method may raise STORE_FAILED, after which the same call may succeed.
    """

    @abstractmethod
    def uri(self, key: str) -> str:
        """Where `key` lies, for people and other systems."""

    @abstractmethod
    def create(self) -> None:
        """Make the store where there is none."""

    @abstractmethod
    def check(self) -> None:
        """Raises STORE_FAILED unless the store is there."""

    @abstractmethod
    def probe(self) -> None:
        """Write a small file and remove it; raises STORE_FAILED."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> StoredFile:
        """Write `data` under `key` durably, replacing a file of that key."""

    @abstractmethod
    def open_stream(self, key: str) -> Any:
        """The file under `key`, to be read from its start: a context manager with `read(n)`. Raises OSError."""

    @abstractmethod
    def open_input(self, key: str) -> Any:
        """The file under `key` for random access, as `pyarrow` takes it: a context manager. Raises OSError."""

    @abstractmethod
    def unread(self, key: str, exc: OSError, sha256: bytes | None = None) -> TidemillError:
        """What a failed read means: the file is missing (DATA_CORRUPT), or the whole store is away."""

    @abstractmethod
    def is_failure(self, exc: OSError) -> bool:
        """Whether the store raised `exc`; Arrow raises OSError for a damaged file too."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether a file lies under `key`."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the file under `key`, if there is one."""

    @abstractmethod
    def remove_folder(self, prefix: str) -> int:
        """Remove every file below `prefix`, unfinished ones too; returns how many there were. Repeating it is OK."""

    @abstractmethod
    def old_files(self, prefix: str, older_than_seconds: float) -> list[str]:
        """Names of the files below `prefix`, unfinished ones too, older than that by the store's own clock; sorted."""

    @abstractmethod
    def remove_files(self, prefix: str, names: Iterable[str]) -> int:
        """Remove files that `old_files` named; returns how many there were. INVALID_ARGUMENT outside of `prefix`."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of the files directly below folder `prefix`, sorted; none when there is no such folder."""

    def get(self, key: str, sha256: bytes | None = None) -> bytes:
        """The bytes under `key`; DATA_CORRUPT when it is missing or is not what `sha256` says, STORE_FAILED when it
        cannot be told."""
        try:
            with self.open_stream(key) as stream:
                data = bytes(stream.read())
        except OSError as exc:
            raise self.unread(key, exc, sha256) from exc
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise _changed(key, sha256)
        return data

    def verify(self, key: str, sha256: bytes) -> None:
        """Read the file under `key` piece by piece; raises as `get` does."""
        digest = hashlib.sha256()
        try:
            with self.open_stream(key) as stream:
                while piece := stream.read(_HASHED_AT_A_TIME):
                    digest.update(piece)
        except OSError as exc:
            raise self.unread(key, exc, sha256) from exc
        if digest.digest() != sha256:
            raise _changed(key, sha256)


def checked_key(key: str) -> str:
    """`key`, or INVALID_ARGUMENT when it is none."""
    if not _KEY.fullmatch(key):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{key[:200]!r} is not an object-store key", metadata={"key": key})
    return key


def outside(name: str, prefix: str) -> TidemillError:
    """The refusal to remove what does not lie below `prefix`."""
    return TidemillError(Reason.INVALID_ARGUMENT, f"{name[:200]!r} does not lie below {prefix}")


def missing(key: str, sha256: bytes | None) -> TidemillError:
    """A file that should be there is not."""
    expected = f"; its SHA-256 is {sha256.hex()}" if sha256 else ""
    metadata = {"key": key} | ({"expected": sha256.hex()} if sha256 else {})
    return TidemillError(Reason.DATA_CORRUPT, f"{key} is missing from the object store{expected}", metadata=metadata)


def away(store: str, problem: str) -> TidemillError:
    """The store as a whole cannot be used."""
    return TidemillError(
        Reason.STORE_FAILED,
        f"the object store is away: {problem}",
        metadata={"store": store},
        retry_after=_RETRY_SECONDS,
    )


def failed(verb: str, key: str, problem: object) -> TidemillError:
    """A call that may succeed when it is repeated."""
    return TidemillError(
        Reason.STORE_FAILED,
        f"could not {verb} {key} in the object store: {problem}",
        metadata={"key": key},
        retry_after=_RETRY_SECONDS,
    )


def _changed(key: str, sha256: bytes) -> TidemillError:
    return TidemillError(
        Reason.DATA_CORRUPT,
        f"{key} was changed after it was written: its SHA-256 is not {sha256.hex()}",
        metadata={"key": key, "expected": sha256.hex()},
    )
