"""Cutting rows into frames that the gateway takes well: up to 1024 rows and below 1 MiB."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2

FRAME_ROWS = 1024
FRAME_BYTES = 1 << 20
# The gateway takes messages of 4 MiB; the rest of the frame needs a few bytes.
MAX_ROW_BYTES = (4 << 20) - 4096
# Tag and length of a row inside its frame.
_ROW_OVERHEAD = 6


@dataclass(frozen=True)
class Frame:
    """Rows from `offset` on; `size` is their encoded size in bytes."""

    offset: int
    rows: list[row_pb2.Row]
    size: int

    @property
    def end(self) -> int:
        """Offset after the last row."""
        return self.offset + len(self.rows)

    def since(self, offset: int) -> "Frame":
        """The part of the frame from `offset` on."""
        rows = self.rows[max(0, offset - self.offset) :]
        return Frame(self.end - len(rows), rows, sum(row.ByteSize() + _ROW_OVERHEAD for row in rows))


def cut_frames(rows: Iterable[row_pb2.Row], boundary: int = 0, start: int = 0) -> Iterator[Frame]:
    """Frames over `rows`, none of them across offset `boundary`; the first row is row `start` of the job.

    Raises FRAME_TOO_LARGE for a row that fits in none.
    """
    offset, batch, size = start, list[row_pb2.Row](), 0
    for row in rows:
        row_size = row.ByteSize() + _ROW_OVERHEAD
        if row_size > MAX_ROW_BYTES:
            _refuse(row, offset + len(batch), row_size)
        full = len(batch) == FRAME_ROWS or size + row_size > FRAME_BYTES or offset + len(batch) == boundary
        if batch and full:
            yield Frame(offset, batch, size)
            offset, batch, size = offset + len(batch), [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield Frame(offset, batch, size)


def _refuse(row: row_pb2.Row, index: int, size: int) -> None:
    raise TidemillError(
        Reason.FRAME_TOO_LARGE,
        f"row {index} ({row.custom_id[:64]!r}) has {size} bytes; a row has at most {MAX_ROW_BYTES}: shorten its prompt",
        metadata={"row_index": index, "custom_id": row.custom_id[:64], "limit": MAX_ROW_BYTES},
    )
