"""Proof that the results of a job are whole: each row exactly once, unchanged, and the answer to its own request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

from tidemill import digests, segments
from tidemill.chunk_index import ChunkIndex
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2

__all__ = ["ChunkParts", "chunks_of", "proved_tables"]

# What the manifest is made of.
_KEPT = [
    "row_index",
    "custom_id",
    "status",
    "output_digest",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "model_digest",
    "engine_build",
    "engine_record",
]


@dataclass(frozen=True)
class ChunkParts:
    """The parts of one chunk, and of the chunks that it was halved into."""

    start: int
    rows: int
    parts: list[records_pb2.PartRef] = field(default_factory=list[records_pb2.PartRef])


def chunks_of(parts: Iterable[records_pb2.PartRef]) -> list[ChunkParts]:
    """The parts, which come in commit order, by chunk in row order."""
    chunks = ChunkIndex(ChunkParts)
    for part in parts:
        chunks.of(part.chunk_start, part.chunk_rows).parts.append(part)
    return list(chunks)


def proved_tables(
    store: ObjectStore,
    chunks: Sequence[ChunkParts],
    inputs: Sequence[records_pb2.SegmentRef],
    row_count: int,
) -> Iterator[tuple[Any, list[bytes]]]:
    """The results in row order without the answers themselves, a chunk at a time, each with the digests of its input
    rows.

    Raises:
        TidemillError: DATA_CORRUPT when a row is missing, doubled or changed, or answers another request.
    """
    reader, expected = _InputReader(store, inputs), 0
    for chunk in chunks:
        if chunk.start != expected:
            _corrupt(f"row {expected} has no result: the next chunk starts at row {chunk.start}")
        requests = reader.take(chunk.rows)
        table = _chunk_table(store, chunk, requests)
        expected = chunk.start + chunk.rows
        yield table, [digest for _, digest in requests]
    if expected != row_count:
        _corrupt(f"results end at row {expected} of {row_count}")


def _chunk_table(store: ObjectStore, chunk: ChunkParts, requests: Sequence[tuple[str, bytes]]) -> Any:
    """The chunk's rows without their answers, which are in memory a row group at a time."""
    import pyarrow as pa

    tables: list[Any] = []
    for part in chunk.parts:
        for whole in segments.read_batches(store, part.key, sha256=part.sha256):
            table = segments.with_later_columns(whole)
            _check_rows(table, [_asked(requests, index, chunk) for index in table.column("row_index").to_pylist()])
            tables.append(table.select(_KEPT))
    table = pa.concat_tables(tables).sort_by("row_index")
    indices = table.column("row_index").to_pylist()
    if indices != list(range(chunk.start, chunk.start + chunk.rows)):
        _corrupt(
            f"chunk {chunk.start} of {chunk.rows} rows has results for {len(set(indices))} rows, {len(indices)} in all"
        )
    return table


def _asked(requests: Sequence[tuple[str, bytes]], index: int, chunk: ChunkParts) -> tuple[str, bytes]:
    if not chunk.start <= index < chunk.start + chunk.rows:
        _corrupt(f"a part of chunk {chunk.start} of {chunk.rows} rows has a result of row {index}")
    return requests[index - chunk.start]


def _check_rows(table: Any, requests: Sequence[tuple[str, bytes]]) -> None:
    names = ("row_index", "custom_id", "request_digest", "status", "error_code", "output_digest")
    columns = (table.column(name).to_pylist() for name in names)
    for (index, key, request, status, code, digest), answer, asked in zip(
        zip(*columns, strict=True), segments.outputs(table), requests, strict=True
    ):
        if (key, request) != asked:
            _corrupt(f"the result of row {index} belongs to another request")
        succeeded = status == row_pb2.ROW_STATUS_SUCCEEDED
        if digest != (answer.digest if succeeded else digests.error_digest(code)):
            _corrupt(f"the output of row {index} does not match its digest")


class _InputReader:
    """Custom ids and digests of the input rows in order, one row group in memory at a time."""

    def __init__(self, store: ObjectStore, inputs: Sequence[records_pb2.SegmentRef]) -> None:
        self._rows = self._read(store, inputs)

    def take(self, count: int) -> list[tuple[str, bytes]]:
        """The next rows."""
        rows = list(islice(self._rows, count))
        if len(rows) != count:
            _corrupt("the input has fewer rows than the results")
        return rows

    @staticmethod
    def _read(store: ObjectStore, inputs: Sequence[records_pb2.SegmentRef]) -> Iterator[tuple[str, bytes]]:
        for segment in inputs:
            columns = ["custom_id", "digest"]
            for table in segments.read_batches(store, segment.key, sha256=segment.sha256, columns=columns):
                yield from zip(table.column("custom_id").to_pylist(), table.column("digest").to_pylist(), strict=True)


def _corrupt(message: str) -> NoReturn:
    raise TidemillError(Reason.DATA_CORRUPT, message)
