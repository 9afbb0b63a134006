"""A folder as an object store: temporary name, fsync, rename, fsync of the folder."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.errors import TidemillError
from tidemill.store.base import MARKER, ObjectStore, StoredFile, away, checked_key, failed, missing, outside


class LocalStore(ObjectStore):
    """A folder of this machine, or one that it mounts.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, key: str) -> str:
        return (self.root / checked_key(key)).as_uri()

    def path(self, key: str) -> Path:
        """Local path of `key`."""
        return self.root / checked_key(key)

    def put(self, key: str, data: bytes) -> StoredFile:
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

    def open_stream(self, key: str) -> Any:
        return self.path(key).open("rb")

    def open_input(self, key: str) -> Any:
        return pa.OSFile(str(self.path(key)))

    def is_failure(self, exc: OSError) -> bool:
        # Arrow's own name for a damaged file is an OSError without a number.
        return exc.errno is not None

    def unread(self, key: str, exc: OSError, sha256: bytes | None = None) -> TidemillError:
        if not isinstance(exc, FileNotFoundError):
            return _failed("read", key, exc)
        try:
            self.check()
        except TidemillError as gone:
            return gone
        return missing(key, sha256)

    def create(self) -> None:
        try:
            _make_folder(self.root)
            # An empty mount point cannot be told from a new store: whoever opens one must know that it is there.
            (self.root / MARKER).touch()
            _fsync_folder(self.root)
        except OSError as exc:
            raise _failed("create", self.root.as_uri(), exc) from exc

    def check(self) -> None:
        try:
            (self.root / MARKER).stat()
        except OSError as exc:
            problem = (
                f"{self.root} holds no {MARKER} ({exc.strerror or exc}). Mount it; a new one is made when a gateway"
            )
            raise away(str(self.root), f"{problem} starts") from exc

    def probe(self) -> None:
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
        return self.path(key).is_file()

    def delete(self, key: str) -> None:
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as exc:
            raise _failed("delete", key, exc) from exc

    def remove_folder(self, prefix: str) -> int:
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
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        try:
            ends = _store_time(folder) - older_than_seconds
            return sorted(f"{prefix}/{name}" for name in _below(folder) if (folder / name).lstat().st_mtime < ends)
        except OSError as exc:
            raise _failed("list", prefix, exc) from exc

    def remove_files(self, prefix: str, names: Iterable[str]) -> int:
        folder, removed = self.path(prefix), 0
        for name in names:
            path = self.root / name
            if not path.parent.resolve().is_relative_to(folder.resolve()):
                raise outside(name, prefix)
            try:
                path.unlink()
                removed += 1
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise _failed("remove", name, exc) from exc
        return removed

    def keys(self, prefix: str) -> Iterator[str]:
        folder = self.path(prefix)
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                if not name.startswith(".") and (folder / name).is_file():
                    yield f"{prefix}/{name}"


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


def _failed(verb: str, key: str, exc: OSError) -> TidemillError:
    return failed(verb, key, exc.strerror or exc)
