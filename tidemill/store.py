"""The object store: immutable files by key below one root.

A file appears under its key wholly and durably, or not at all: temporary name, fsync, rename, fsync of the folder.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from tidemill.errors import Reason, TidemillError

MARKER = ".tidemill-store"
"""Lies in the root of every store: an empty mount point is not taken for a store that lost its files."""

_HASHED_AT_A_TIME = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(/[A-Za-z0-9][A-Za-z0-9._=-]*)*")


@dataclass(frozen=True)
class StoredFile:
    """A file that was written: its key, SHA-256 and size in bytes."""

    key: str
    sha256: bytes
    size_bytes: int


class ObjectStore:
    """A folder of this machine as an object store.

    Attributes:
        root: the folder.
        filesystem: `pyarrow.fs` view of it; paths are keys.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.filesystem: Any = cast("Any", fs).SubTreeFileSystem(str(root), cast("Any", fs).LocalFileSystem())

    def uri(self, key: str) -> str:
        """Where `key` lies, for people and other systems."""
        return (self.root / _checked(key)).as_uri()

    def path(self, key: str) -> Path:
        """Local path of `key`."""
        return self.root / _checked(key)

    def put(self, key: str, data: bytes) -> StoredFile:
        """Write `data` under `key` durably, replacing a file of that key; OSError becomes STORE_FAILED."""
        target = self.path(key)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        self.check()
        try:
            _make_folder(target.parent)
            _write_durably(temporary, data)
            os.replace(temporary, target)
            _fsync_folder(target.parent)
        except OSError as exc:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _failed("write", key, exc) from exc
        return StoredFile(key, hashlib.sha256(data).digest(), len(data))

    def get(self, key: str, sha256: bytes | None = None) -> bytes:
        """The bytes under `key`; DATA_CORRUPT when it is missing or is not what `sha256` says, STORE_FAILED when it
        cannot be told."""
        try:
            data = self.path(key).read_bytes()
        except OSError as exc:
            raise self.unread(key, exc, sha256) from exc
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise _changed(key, sha256)
        return data

    def verify(self, key: str, sha256: bytes) -> None:
        """Read the file under `key` piece by piece; raises as `get` does."""
        digest = hashlib.sha256()
        try:
            with self.path(key).open("rb") as file:
                while piece := file.read(_HASHED_AT_A_TIME):
                    digest.update(piece)
        except OSError as exc:
            raise self.unread(key, exc, sha256) from exc
        if digest.digest() != sha256:
            raise _changed(key, sha256)

    def unread(self, key: str, exc: OSError, sha256: bytes | None = None) -> TidemillError:
        """What a failed read means: the file is missing, or the whole store is away."""
        if not isinstance(exc, FileNotFoundError):
            return _failed("read", key, exc)
        try:
            self.check()
        except TidemillError as away:
            return away
        expected = f"; its SHA-256 is {sha256.hex()}" if sha256 else ""
        metadata = {"key": key} | ({"expected": sha256.hex()} if sha256 else {})
        return TidemillError(
            Reason.DATA_CORRUPT, f"{key} is missing from the object store{expected}", metadata=metadata
        )

    def check(self) -> None:
        """Raises STORE_FAILED unless the store is there."""
        try:
            (self.root / MARKER).stat()
        except OSError as exc:
            raise TidemillError(
                Reason.STORE_FAILED,
                f"the object store is away: {self.root} holds no {MARKER} ({exc.strerror or exc}). Mount it; a new one "
                "is made when a gateway starts",
                metadata={"store": str(self.root)},
                retry_after=1.0,
            ) from exc

    def probe(self) -> None:
        """Write a small file and remove it; raises STORE_FAILED."""
        self.check()
        path = self.root / f".probe.{secrets.token_hex(8)}"
        try:
            _write_durably(path, b"x")
        except OSError as exc:
            raise _failed("write", path.name, exc) from exc
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Whether a file lies under `key`."""
        return self.path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove the file under `key`, if there is one."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as exc:
            raise _failed("delete", key, exc) from exc

    def remove_folder(self, prefix: str) -> int:
        """Remove every file below `prefix`, unfinished ones too; returns how many there were. Repeating it is OK."""
        folder = self.path(prefix)
        try:
            names = list(_below(folder))
            if folder.is_dir():
                shutil.rmtree(folder)
                _fsync_folder(folder.parent)
        except OSError as exc:
            raise _failed("remove", prefix, exc) from exc
        return len(names)

    def old_files(self, prefix: str, older_than_seconds: float) -> list[str]:
        """Names of the files below `prefix`, unfinished ones too, older than that by the store's own clock; sorted."""
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        try:
            ends = _store_time(folder) - older_than_seconds
            return sorted(f"{prefix}/{name}" for name in _below(folder) if (folder / name).lstat().st_mtime < ends)
        except OSError as exc:
            raise _failed("list", prefix, exc) from exc

    def remove_files(self, prefix: str, names: Iterable[str]) -> int:
        """Remove files that `old_files` named; returns how many there were. INVALID_ARGUMENT outside of `prefix`."""
        folder, removed = self.path(prefix), 0
        for name in names:
            path = self.root / name
            if not path.parent.resolve().is_relative_to(folder.resolve()):
                raise TidemillError(Reason.INVALID_ARGUMENT, f"{name[:200]!r} does not lie below {prefix}")
            try:
                path.unlink()
                removed += 1
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise _failed("remove", name, exc) from exc
        return removed

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of the files directly below folder `prefix`, sorted; none when there is no such folder."""
        folder = self.path(prefix)
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                if not name.startswith(".") and (folder / name).is_file():
                    yield f"{prefix}/{name}"


def open_store(uri: str) -> ObjectStore:
    """The store behind `uri`, made where there is none; only `file://` folders are known to this build."""
    store = attach_store(uri)
    try:
        _make_folder(store.root)
        # An empty mount point cannot be told from a new store: whoever opens one must know that it is there.
        (store.root / MARKER).touch()
        _fsync_folder(store.root)
    except OSError as exc:
        raise _failed("create", uri, exc) from exc
    return store


def attach_store(uri: str) -> ObjectStore:
    """The store behind `uri`, there or not: nothing is made, and every call says when it is away."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"store {uri!r} is not supported: use file:///absolute/folder",
            metadata={"store": uri},
        )
    return ObjectStore(Path(unquote(parts.path)))


def _below(folder: Path) -> Iterator[str]:
    """Paths of all files in a folder and below, relative to it; links are not followed."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "the folder is a symbolic link", str(folder))
    for path, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            yield str((Path(path) / name).relative_to(folder))


def _raise(exc: OSError) -> None:
    # A folder that another process removed meanwhile holds nothing.
    if not isinstance(exc, FileNotFoundError):
        raise exc


def _store_time(folder: Path) -> float:
    """Now, by the clock that dates the files: over a network that is not this machine's."""
    probe = folder / f".clock.{secrets.token_hex(8)}"
    probe.touch(exist_ok=False)
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"{key[:200]!r} is not an object-store key", metadata={"key": key})
    return key


def _make_folder(folder: Path) -> None:
    # A new folder is durable only once its parent is synced, up to the first one that was there before.
    missing = [folder, *folder.parents]
    created = [path for path in missing if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in created:
        _fsync_folder(path.parent)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed(key: str, sha256: bytes) -> TidemillError:
    return TidemillError(
        Reason.DATA_CORRUPT,
        f"{key} was changed after it was written: its SHA-256 is not {sha256.hex()}",
        metadata={"key": key, "expected": sha256.hex()},
    )


def _failed(verb: str, key: str, exc: OSError) -> TidemillError:
    return TidemillError(
        Reason.STORE_FAILED,
        f"could not {verb} {key} in the object store: {exc.strerror or exc}",
        metadata={"key": key},
        retry_after=1.0,
    )
