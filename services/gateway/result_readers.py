"""Readers of result segments in the two orders; each keeps its position and can be asked again for what is new."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.gateway.result_fields import ALL_FIELDS, ResultFields
from services.gateway.scheduler import Scheduler
from tidemill import rowset
from tidemill.chunk_index import ChunkIndex
from tidemill.internal.v1 import records_pb2
from tidemill.segments import read_batches
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, row_pb2

# What a window of rows may take in memory, judged by its tokens and by what the rows before it took: vectors and log
# probabilities have no tokens to go by, so the first window is small.
_WINDOW_BYTES = 4 << 20
_FIRST_ROWS = 32
_BYTES_PER_TOKEN = 6
_BYTES_PER_ROW = 400

Results = Sequence[row_pb2.RowResult]


class ResultReader(ABC):
    """Results of a job from `position` on.

    Attributes:
        position: offset of the next result.
        state: the job's state at the moment of the last look at its parts.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        store: ObjectStore,
        job: str,
        position: int,
        fields: ResultFields = ALL_FIELDS,
    ) -> None:
        self.position = position
        self.state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_UNSPECIFIED
        self._scheduler = scheduler
        self._store = store
        self._job = job
        self._fields = fields
        self._parts_seen = 0

    @abstractmethod
    def read(self) -> AsyncIterator[Results]:
        """What is visible now from the position on, in pieces of bounded size."""

    async def _fresh_parts(self) -> AsyncIterator[records_pb2.PartRef]:
        more = True
        while more:
            page = await self._scheduler.list_parts(self._job, self._parts_seen)
            for part in page.parts:
                self._parts_seen += 1
                yield part
            self.state, more = page.state, page.more


class CompletionReader(ResultReader):
    """Results as they were committed; positions count finished rows."""

    async def read(self) -> AsyncIterator[Results]:
        async for part in self._fresh_parts():
            skip = self.position - part.first_result_offset
            if skip < part.row_count:
                async for rows in self._groups(part.key):
                    fresh = rows[max(skip, 0) :]
                    skip -= len(rows)
                    self.position += len(fresh)
                    if fresh:
                        yield fresh

    async def _groups(self, key: str) -> AsyncIterator[Results]:
        tables = read_batches(self._store, key, columns=self._fields.columns)
        while (rows := await asyncio.to_thread(self._next_group, tables)) is not None:
            yield rows

    def _next_group(self, tables: Iterator[Any]) -> Results | None:
        table = next(tables, None)
        return None if table is None else list(self._fields.results(table))


@dataclass
class _Chunk:
    """The parts of one chunk and the rows that they hold, as sets within the chunk."""

    start: int
    rows: int
    done: int = 0
    output_tokens: int = 0
    parts: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def add(self, part: records_pb2.PartRef) -> None:
        # The part may be of a half of this chunk.
        bitmap = rowset.from_bytes(part.row_bitmap) << (part.chunk_start - self.start)
        self.done |= bitmap
        self.output_tokens += part.tally.output_tokens
        self.parts.append((part.key, bitmap))

    def run_from(self, offset: int, known_row_bytes: int) -> int:
        """Number of finished rows from `offset` on without a gap, shortened to what fits into a window."""
        rest = self.done >> offset
        run = (~rest & (rest + 1)).bit_length() - 1
        row_bytes = _BYTES_PER_ROW + _BYTES_PER_TOKEN * self.output_tokens // max(1, self.done.bit_count())
        return min(run, max(1, _WINDOW_BYTES // max(row_bytes, known_row_bytes)))


class InputReader(ResultReader):
    """Results by row index, up to the first row that has none yet; positions are row indices."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: ObjectStore,
        job: str,
        position: int,
        fields: ResultFields = ALL_FIELDS,
    ) -> None:
        super().__init__(scheduler, store, job, position, fields)
        self._chunks = ChunkIndex(_Chunk)
        self._row_bytes = _WINDOW_BYTES // _FIRST_ROWS

    async def read(self) -> AsyncIterator[Results]:
        async for part in self._fresh_parts():
            if self.position < part.chunk_start + part.chunk_rows:
                self._chunks.of(part.chunk_start, part.chunk_rows).add(part)
        while (chunk := self._chunks.at(self.position)) and (run := self._run(chunk)):
            rows = await asyncio.to_thread(self._load, chunk, self.position, run)
            self.position += len(rows)
            self._chunks.drop_below(self.position)
            self._row_bytes = sum(row.ByteSize() for row in rows) // len(rows)
            yield rows

    def _run(self, chunk: _Chunk) -> int:
        return chunk.run_from(self.position - chunk.start, self._row_bytes)

    def _load(self, chunk: _Chunk, start: int, count: int) -> Results:
        window = rowset.full(count) << (start - chunk.start)
        rows: list[row_pb2.RowResult] = []
        for key, bitmap in chunk.parts:
            if bitmap & window:
                for table in read_batches(self._store, key, columns=self._fields.columns):
                    rows.extend(self._fields.results(_between(table, start, start + count)))
        return sorted(rows, key=lambda row: row.row_index)


async def first_results(scheduler: Scheduler, store: ObjectStore, job: str, count: int) -> Results:
    """The first `count` results that were committed."""
    reader = CompletionReader(scheduler, store, job, 0)
    found: list[row_pb2.RowResult] = []
    async for rows in reader.read():
        found.extend(rows[: count - len(found)])
        if len(found) == count:
            break
    return found


def _between(table: Any, start: int, end: int) -> Any:
    indices = table.column("row_index").to_numpy()
    return table.filter((indices >= start) & (indices < end))
