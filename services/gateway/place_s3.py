"""A file in a bucket below an allowed prefix. The end of an upload makes it appear, whole."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from pyarrow import fs

from services.gateway.places import Existing, Place, exists, not_found, place_failed, too_large
from tidemill.store.s3_address import S3Address, explain, filesystem

_COPIED_AT_A_TIME = 8 << 20
_FILE = cast("Any", fs).FileType.File


class S3Place(Place):
    """An object by its names in the bucket."""

    def __init__(self, uri: str, address: S3Address, names: Sequence[str]) -> None:
        self.uri = uri
        self.name = names[-1]
        self._address = address
        self._path = "/".join([address.bucket, *names])
        self._fs = filesystem(address)

    def open(self, spool: Path, most_bytes: int) -> BinaryIO:
        with self._explained():
            info = self._fs.get_file_info(self._path)
            if info.type != _FILE:
                raise not_found(self.uri)
            if info.size > most_bytes:
                raise too_large(self.uri, info.size, most_bytes)
            file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115 - handed to the caller
            with contextlib.ExitStack() as stack:
                stack.callback(file.close)
                with self._fs.open_input_stream(self._path) as source:
                    shutil.copyfileobj(source, file, _COPIED_AT_A_TIME)
                stack.pop_all()
        file.seek(0)
        return cast("BinaryIO", file)

    def existing(self) -> Existing | None:
        digest, size = hashlib.sha256(), 0
        with self._explained():
            if self._fs.get_file_info(self._path).type != _FILE:
                return None
            with self._fs.open_input_stream(self._path) as source:
                while piece := source.read(_COPIED_AT_A_TIME):
                    digest.update(piece)
                    size += len(piece)
        return Existing(digest.digest(), size)

    def write(self, content: BinaryIO, *, overwrite: bool) -> None:
        with self._explained():
            if not overwrite and self._fs.get_file_info(self._path).type == _FILE:
                raise exists(self.uri)
            # Nothing but a fault of the spool file can end this between first and last byte, and Arrow completes an
            # upload even then: so what was read is counted before the object may stay.
            size = 0
            try:
                with self._fs.open_output_stream(self._path) as target:
                    while piece := content.read(_COPIED_AT_A_TIME):
                        target.write(piece)
                        size += len(piece)
            finally:
                if size != content.seek(0, 2):
                    self._fs.delete_file(self._path)

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            raise place_failed(self.uri, explain(exc, self._address)) from exc
