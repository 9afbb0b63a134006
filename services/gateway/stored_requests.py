"""Rows of a terminal job as they were appended, to be asked again: one input segment in memory at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from services.gateway.scheduler import Scheduler
from tidemill.encoding import decode_row
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.segments import read_batches, read_segment
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2

_FRAME_ROWS = 256
_FRAME_BYTES = 1 << 20

Rows = Sequence[row_pb2.Row]


class StoredRequests(ABC):
    """Reads some rows of one job."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, job: str) -> None:
        self._scheduler = scheduler
        self._store = store
        self._job = job

    async def frames(self, skip: int) -> AsyncIterator[Rows]:
        """The rows in input order behind the first `skip`, in frames; DATA_CORRUPT where a file has changed."""
        indices = (await self._indices())[skip:]
        for segment in await self._scheduler.list_segments(self._job):
            first, last = np.searchsorted(indices, [segment.start, segment.start + segment.count])
            if first < last:
                for frame in _cut(await asyncio.to_thread(self._rows, segment, indices[first:last])):
                    yield frame

    @abstractmethod
    async def _indices(self) -> Any:
        """Sorted array of the rows' indices, 8 bytes each."""

    def _rows(self, segment: records_pb2.SegmentRef, indices: Any) -> list[row_pb2.Row]:
        columns = ["custom_id", "request"]
        table = read_segment(self._store, segment.key, sha256=segment.sha256, columns=columns)
        picked = table.take(indices - segment.start).to_pylist()
        try:
            return [decode_row(row["custom_id"], row["request"]) for row in picked]
        except ValueError as exc:
            raise TidemillError(
                Reason.DATA_CORRUPT,
                f"{segment.key} holds a request that cannot be read: {exc}",
                metadata={"key": segment.key},
            ) from exc


class ChosenRows(StoredRequests):
    """The rows with these indices."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore, job: str, indices: Iterable[int]) -> None:
        super().__init__(scheduler, store, job)
        self._chosen = np.unique(np.fromiter(indices, dtype=np.int64))

    async def _indices(self) -> Any:
        return self._chosen


class FailedRows(StoredRequests):
    """The rows that ended with an error."""

    async def _indices(self) -> Any:
        parts = [part.key async for part in self._parts()]
        return await asyncio.to_thread(self._failed, parts)

    async def _parts(self) -> AsyncIterator[records_pb2.PartRef]:
        seen, more = 0, True
        while more:
            page = await self._scheduler.list_parts(self._job, seen)
            seen, more = seen + len(page.parts), page.more
            for part in page.parts:
                if part.tally.failed:
                    yield part

    def _failed(self, parts: Sequence[str]) -> Any:
        found: list[Any] = [np.empty(0, dtype=np.int64)]
        for key in parts:
            for table in read_batches(self._store, key, columns=["row_index", "status"]):
                failed = table.column("status").to_numpy() == row_pb2.ROW_STATUS_FAILED
                found.append(table.column("row_index").to_numpy()[failed])
        return np.sort(np.concatenate(found))


def _cut(rows: Rows) -> Iterator[Rows]:
    frame: list[row_pb2.Row] = []
    size = 0
    for row in rows:
        if frame and (len(frame) == _FRAME_ROWS or size + row.ByteSize() > _FRAME_BYTES):
            yield frame
            frame, size = [], 0
        frame.append(row)
        size += row.ByteSize()
    if frame:
        yield frame
