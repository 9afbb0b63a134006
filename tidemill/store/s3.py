"""A bucket of S3, or of a server that speaks its protocol, as an object store.

A PUT, and the end of a multipart upload, make a file appear whole and durable; nothing needs a temporary name.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Generator, Iterable, Iterator
from typing import Any, cast

from pyarrow import fs

from tidemill.errors import TidemillError
from tidemill.store.base import MARKER, ObjectStore, StoredFile, away, checked_key, failed, missing, outside
from tidemill.store.s3_address import S3Address, explain, filesystem

_fs = cast("Any", fs)
_FILE, _NOTHING = _fs.FileType.File, _fs.FileType.NotFound


class S3Store(ObjectStore):
    """Keys below a prefix of a bucket, which must exist.

    Attributes:
        address: the place.
    """

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self._fs = filesystem(address)

    def uri(self, key: str) -> str:
        return f"{self.address.uri}/{checked_key(key)}"

    def create(self) -> None:
        with self._explained("create", MARKER):
            if self._info(MARKER).type == _NOTHING:
                self._write(self._path(MARKER), b"")

    def check(self) -> None:
        try:
            there = self._info(MARKER).type == _FILE
        except OSError as exc:
            raise away(self.address.uri, explain(exc, self.address)) from exc
        if not there:
            raise away(
                self.address.uri, f"{self.address.uri} holds no {MARKER}; it is made when a gateway starts there"
            )

    def probe(self) -> None:
        self.check()
        name = f".probe.{secrets.token_hex(8)}"
        with self._explained("write", name):
            self._write(self._path(name), b"x")
            self._fs.delete_file(self._path(name))

    def put(self, key: str, data: bytes) -> StoredFile:
        path = self._path(checked_key(key))
        with self._explained("write", key):
            self._write(path, data)
        return StoredFile(key, hashlib.sha256(data).digest(), len(data))

    def open_stream(self, key: str) -> Any:
        return self._fs.open_input_stream(self._path(checked_key(key)))

    def open_input(self, key: str) -> Any:
        return self._fs.open_input_file(self._path(checked_key(key)))

    def unread(self, key: str, exc: OSError, sha256: bytes | None = None) -> TidemillError:
        if not isinstance(exc, FileNotFoundError):
            return failed("read", key, explain(exc, self.address))
        try:
            self.check()
        except TidemillError as gone:
            return gone
        return missing(key, sha256)

    def is_failure(self, exc: OSError) -> bool:
        return exc.errno is not None or "AWS Error" in str(exc)

    def exists(self, key: str) -> bool:
        with self._explained("find", key):
            return self._info(checked_key(key)).type == _FILE

    def delete(self, key: str) -> None:
        with self._explained("delete", key), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self._path(checked_key(key)))

    def remove_folder(self, prefix: str) -> int:
        with self._explained("remove", prefix):
            count = len(self._below(checked_key(prefix)))
            # Not found: another process was faster, or it never was.
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_dir(self._path(prefix))
        return count

    def old_files(self, prefix: str, older_than_seconds: float) -> list[str]:
        with self._explained("list", prefix):
            files = self._below(checked_key(prefix))
            if not files:
                return []
            ends = self._store_time() - older_than_seconds
            return sorted(self._name(item) for item in files if item.mtime.timestamp() < ends)

    def remove_files(self, prefix: str, names: Iterable[str]) -> int:
        removed = 0
        for name in names:
            if not name.startswith(f"{checked_key(prefix)}/") or ".." in name.split("/"):
                raise outside(name, prefix)
            with self._explained("remove", name), contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))
                removed += 1
        return removed

    def keys(self, prefix: str) -> Iterator[str]:
        with self._explained("list", prefix):
            names = sorted(self._name(item) for item in self._below(checked_key(prefix), recursive=False))
        yield from (name for name in names if not name.rpartition("/")[2].startswith("."))

    def _path(self, name: str) -> str:
        return f"{self.address.base}/{name}"

    def _name(self, info: Any) -> str:
        return info.path.removeprefix(f"{self.address.base}/")

    def _info(self, name: str) -> Any:
        return self._fs.get_file_info(self._path(name))

    def _below(self, prefix: str, *, recursive: bool = True) -> list[Any]:
        selector = _fs.FileSelector(self._path(prefix), allow_not_found=True, recursive=recursive)
        return [item for item in self._fs.get_file_info(selector) if item.type == _FILE]

    def _write(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def _store_time(self) -> float:
        """Now, by the clock that dates the files."""
        path = self._path(f".clock.{secrets.token_hex(8)}")
        self._write(path, b"")
        try:
            return self._fs.get_file_info(path).mtime.timestamp()
        finally:
            self._fs.delete_file(path)

    @contextlib.contextmanager
    def _explained(self, verb: str, key: str) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            raise failed(verb, key, explain(exc, self.address)) from exc
