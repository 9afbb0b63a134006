"""Finding two equal custom ids among any number of them in bounded memory."""

import heapq
import struct
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType
from typing import IO, Self

from tidemill.digests import id_hash

_RUN_IDS = 250_000
_RECORD = 24
_READ_RECORDS = 4096


class DistinctIds:
    """An external sort: sorted runs of (16-byte hash, line) go to temporary files and are merged at the end.

    250,000 ids take some 15 MB of memory; more take 24 bytes of disk each.
    """

    def __init__(self, run_ids: int = _RUN_IDS) -> None:
        self._run_ids = run_ids
        self._run: list[bytes] = []
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def add(self, custom_id: str, line: int) -> None:
        """Note that `custom_id` stands on `line`."""
        self._run.append(id_hash(custom_id) + struct.pack(">Q", line))
        if len(self._run) >= self._run_ids:
            self._spill()

    def first_duplicate(self) -> tuple[int, int] | None:
        """Lines of the repeated id whose repeat comes first, or None."""
        self._run.sort()
        merged = heapq.merge(*(_records(file) for file in self._files), self._run)
        repeats = ((after, before) for before, after in pairwise(merged) if before[:16] == after[:16])
        found = min(((_line(after), _line(before)) for after, before in repeats), default=None)
        return (found[1], found[0]) if found else None

    def _spill(self) -> None:
        self._run.sort()
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        file.write(b"".join(self._run))
        self._files.append(file)
        self._run = []


def _line(record: bytes) -> int:
    return struct.unpack(">Q", record[16:])[0]


def _records(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(_RECORD * _READ_RECORDS):
        for start in range(0, len(block), _RECORD):
            yield block[start : start + _RECORD]
