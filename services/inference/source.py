"""The rows of a chunk as a Ray Data source: which rows of which segments, read in tasks of a few hundred."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.inference import slices
from services.inference.checked import CheckedFiles
from tidemill import rowset, segments
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.store import ObjectStore, attach_store

__all__ = [
    "InputUnreadableError",
    "Piece",
    "Slice",
    "plan_slices",
    "read_chunk",
    "read_rows",
    "read_slice",
    "rows_to_run",
    "slices_of",
    "verify_segments",
]


_AWAY_SECONDS = 20.0
_PAUSE_SECONDS = 0.5


class InputUnreadableError(Exception):
    """A segment cannot be read. Made to travel between processes: arguments are the message and the reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)

    @property
    def error(self) -> TidemillError:
        """The same as the one error of this project."""
        return TidemillError(Reason(self.args[1]), self.args[0])


@dataclass(frozen=True)
class Piece:
    """Rows of one segment by their index in the job, rising; `start` is the index of the segment's first row."""

    key: str
    sha256: bytes
    start: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Slice:
    """What one task reads: at least one row."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(len(piece.rows) for piece in self.pieces)


def rows_to_run(lease: scheduler_service_pb2.Lease) -> int:
    """The rows of a lease that have no result yet and are not condemned, as a set within the chunk."""
    settled = rowset.from_bytes(lease.done_bitmap) | rowset.from_bytes(lease.condemned_bitmap)
    return rowset.full(lease.chunk_rows) & ~settled


def plan_slices(lease: scheduler_service_pb2.Lease, rows_a_slice: int) -> list[Slice]:
    """The rows of a lease that are to be run, cut into slices by row index."""
    return slices_of(lease, rows_to_run(lease), rows_a_slice)


def slices_of(lease: scheduler_service_pb2.Lease, wanted: int, rows_a_slice: int) -> list[Slice]:
    """These rows of a lease, a set within its chunk, cut into slices by row index."""
    rows = [lease.chunk_start + offset for offset in rowset.indices(wanted)]
    return [_slice(lease.segments, rows[at : at + rows_a_slice]) for at in range(0, len(rows), rows_a_slice)]


def _slice(covering: Sequence[records_pb2.SegmentRef], rows: Sequence[int]) -> Slice:
    pieces: list[Piece] = []
    for segment in covering:
        inside = tuple(row for row in rows if segment.start <= row < segment.start + segment.count)
        if inside:
            pieces.append(Piece(segment.key, segment.sha256, segment.start, inside))
    return Slice(tuple(pieces))


def read_rows(store: ObjectStore, piece: Piece) -> Any:
    """The piece's rows as a table of `segments.INPUT_SCHEMA`; TidemillError when the segment cannot be read."""
    return segments.read_rows(store, piece.key, [row - piece.start for row in piece.rows])


def verify_segments(files: CheckedFiles, lease: scheduler_service_pb2.Lease) -> None:
    """Check the digest of each segment of a lease: tasks read their own row groups alone.

    Raises:
        TidemillError: DATA_CORRUPT or STORE_FAILED.
    """
    for segment in lease.segments:
        files.verify(segment.key, segment.sha256)


def read_slice(store_uri: str, wanted: Slice) -> Iterator[Any]:
    """The slice's rows as a packed table of `segments.INPUT_SCHEMA`; InputUnreadableError when a segment was
    changed."""
    import pyarrow as pa

    store = attach_store(store_uri)
    tables = [_read_piece(store, piece) for piece in wanted.pieces]
    yield slices.pack(pa.concat_tables(tables))


def _read_piece(store: ObjectStore, piece: Piece) -> Any:
    # A store that is away for a moment must not end the tasks of the chunk that are at the engine.
    give_up_at = time.monotonic() + _AWAY_SECONDS
    while True:
        try:
            return read_rows(store, piece)
        except TidemillError as error:
            if error.reason is not Reason.STORE_FAILED or time.monotonic() > give_up_at:
                raise InputUnreadableError(error.message, error.reason.value) from None
        time.sleep(_PAUSE_SECONDS)


def read_chunk(store_uri: str, wanted: Sequence[Slice]) -> Any:
    """A Ray dataset of packed slices, one read task each."""
    import ray.data
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class ChunkSource(Datasource):
        """Slices that are known in advance; Ray Data's own Parquet source would list and sample files first."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_args: Any, **_options: Any) -> list[ReadTask]:
            return [_task(item) for item in wanted]

    def _task(item: Slice) -> ReadTask:
        metadata = BlockMetadata(num_rows=1, size_bytes=None, input_files=None, exec_stats=None)
        return ReadTask(partial(read_slice, store_uri, item), metadata)

    return ray.data.read_datasource(ChunkSource(), override_num_blocks=len(wanted))
