"""Rows in batches of about a frame for an event loop, from what `open_rows` takes and from asynchronous iterables."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator

from tidemill.client.frames import FRAME_BYTES, FRAME_ROWS
from tidemill.client.rows import RowLike, to_row
from tidemill.client.sources import Columns, RowSource, is_lazy, open_rows
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

AsyncRowSource = RowSource | AsyncIterable[RowLike]


class _Batch:
    def __init__(self) -> None:
        self.rows: list[row_pb2.Row] = []
        self._bytes = 0

    def add(self, row: row_pb2.Row) -> bool:
        """Take a row; returns whether the batch is full."""
        self.rows.append(row)
        self._bytes += row.ByteSize()
        return len(self.rows) >= FRAME_ROWS or self._bytes >= FRAME_BYTES


async def open_batches(
    source: AsyncRowSource, *, model: str = "", columns: Columns | None = None
) -> AsyncIterator[list[row_pb2.Row]]:
    """Batches of the rows in `source`. What can be refused before the first row is refused by this call.

    Files and tables are read in a thread, generators of the caller in the loop's own.
    """
    if isinstance(source, AsyncIterable):
        if columns is not None:
            raise TidemillError(Reason.INVALID_ARGUMENT, "columns is for tables, not for asynchronous iterables")
        return _gather(source)
    if is_lazy(source):
        return _take_in_thread(await asyncio.to_thread(open_rows, source, model=model, columns=columns))
    return _take_here(open_rows(source, model=model, columns=columns))


async def _gather(source: AsyncIterable[RowLike]) -> AsyncIterator[list[row_pb2.Row]]:
    batch, index = _Batch(), 0
    async for item in source:
        if batch.add(to_row(item, index)):
            yield batch.rows
            batch = _Batch()
        index += 1
    if batch.rows:
        yield batch.rows


async def _take_in_thread(rows: Iterator[row_pb2.Row]) -> AsyncIterator[list[row_pb2.Row]]:
    while batch := await asyncio.to_thread(_take, rows):
        yield batch


async def _take_here(rows: Iterator[row_pb2.Row]) -> AsyncIterator[list[row_pb2.Row]]:
    while batch := _take(rows):
        yield batch


def _take(rows: Iterator[row_pb2.Row]) -> list[row_pb2.Row]:
    batch = _Batch()
    for row in rows:
        if batch.add(row):
            break
    return batch.rows
