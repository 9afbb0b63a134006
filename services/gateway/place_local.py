"""A file of this machine below an allowed folder. Every step below the root is taken without following links."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO

from services.gateway.places import Existing, Place, exists, not_found, place_failed, too_large, unusable
from tidemill.errors import TidemillError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A pipe without a writer would be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE, _FOLDER_MODE = 0o640, 0o750
_COPIED_AT_A_TIME = 1 << 20


class LocalPlace(Place):
    """A file by its names below a root."""

    def __init__(self, uri: str, root: Sequence[str], names: Sequence[str]) -> None:
        self.uri = uri
        self.name = names[-1]
        self._root = Path("/", *root)
        self._folders = names[:-1]

    def open(self, spool: Path, most_bytes: int) -> BinaryIO:  # noqa: ARG002 - it is on this machine already
        with self._explained(), self._folder() as folder:
            file = self._open(folder)
        if (size := os.fstat(file.fileno()).st_size) > most_bytes:
            file.close()
            raise too_large(self.uri, size, most_bytes)
        return file

    def existing(self) -> Existing | None:
        digest = hashlib.sha256()
        with self._explained():
            try:
                with self._folder() as folder, self._open(folder) as file:
                    while piece := file.read(_COPIED_AT_A_TIME):
                        digest.update(piece)
                    return Existing(digest.digest(), file.tell())
            except FileNotFoundError:
                return None

    def write(self, content: BinaryIO, *, overwrite: bool) -> None:
        temporary = f".{self.name[:100]}.{secrets.token_hex(8)}.partial"
        with self._explained(), self._folder(create=True) as folder:
            try:
                with os.fdopen(os.open(temporary, _CREATE, _MODE, dir_fd=folder), "wb") as file:
                    shutil.copyfileobj(content, file, _COPIED_AT_A_TIME)
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(temporary, folder, overwrite=overwrite)
                os.fsync(folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)

    def _publish(self, temporary: str, folder: int, *, overwrite: bool) -> None:
        if overwrite:
            os.replace(temporary, self.name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        try:
            # A rename would replace what another export put there meanwhile.
            os.link(temporary, self.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise exists(self.uri) from None

    def _open(self, folder: int) -> BinaryIO:
        descriptor = os.open(self.name, _READ, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise unusable(self.uri, "is not a regular file")
        return os.fdopen(descriptor, "rb")

    @contextlib.contextmanager
    def _folder(self, *, create: bool = False) -> Generator[int]:
        """A descriptor of the folder that holds the file."""
        folder = os.open(self._root, _FOLDER)
        try:
            for name in self._folders:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, _FOLDER_MODE, dir_fd=folder)
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            raise self._error(exc) from exc

    def _error(self, exc: OSError) -> TidemillError:
        match exc.errno:
            case errno.ENOENT:
                return not_found(self.uri)
            case errno.ELOOP | errno.ENOTDIR | errno.EISDIR:
                return unusable(self.uri, "leads over a symbolic link, or over a file as if it were a folder")
            case errno.EACCES | errno.EPERM:
                return unusable(self.uri, "may not be opened by the gateway's user")
            case _:
                return place_failed(self.uri, exc.strerror or exc)
